"""Who may use a cache: pure rules over the configuration.

Namespace and service account must come from where kubelet or the provisioner puts them; never from a pod author's text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachefetch.config import Cache, Config


def may_use(cache: Cache, namespace: str, service_account: str) -> bool:
    """Whether a pod of that namespace and service account may use `cache`: one matching pattern is enough.

    A caller without a namespace is nobody and may use nothing. One without a service account (a claim) can only match
    the namespaces.
    """
    if not namespace:
        return False
    if any(_matches(pattern, namespace) for pattern in cache.access.namespaces):
        return True
    pairs = (pattern.split("/", 1) for pattern in cache.access.service_accounts)
    return bool(service_account) and any(
        _matches(in_namespace, namespace) and _matches(name, service_account) for in_namespace, name in pairs
    )


def visible(config: Config, namespace: str, service_account: str) -> list[str]:
    """The names of the caches that the caller may use, for error texts that must not betray the others; sorted."""
    return sorted(cache.name for cache in config.caches if may_use(cache, namespace, service_account))


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """`*` stands for any characters, also none; everything else for itself."""
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", pattern)), re.DOTALL)
