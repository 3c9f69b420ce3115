"""Who may use a cache, asked on behalf of a claim (CreateVolume) or a pod (NodePublishVolume). No side effects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachefetch.access import may_use, visible
from cachefetch.errors import InvalidRequest, NotAllowed, UnknownCache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachefetch.config import Config

_PREFIX = "csi.storage.k8s.io/"
CLAIM_NAMESPACE = f"{_PREFIX}pvc/namespace"
"""Parameter that the external-provisioner sets with `--extra-create-metadata`, whatever the StorageClass says."""
POD_NAMESPACE = f"{_PREFIX}pod.namespace"
SERVICE_ACCOUNT = f"{_PREFIX}serviceAccount.name"
"""Keys of the volume context that kubelet sets with `podInfoOnMount: true`."""


def check_claim(config: Config, cache: str, parameters: Mapping[str, str]) -> None:
    """Return if a claim with these parameters may show the cache.

    Raises:
        InvalidRequest: the parameters do not tell the claim's namespace.
        UnknownCache: there is no such cache.
        NotAllowed: the cache is not for that namespace.
    """
    namespace = parameters.get(CLAIM_NAMESPACE, "")
    if not namespace:
        raise InvalidRequest(
            f"parameter {CLAIM_NAMESPACE} is missing, without it nobody knows who asks for cache {cache!r}: run the "
            "external-provisioner with --extra-create-metadata"
        )
    _check(config, cache, namespace, "")


def check_pod(config: Config, cache: str, context: Mapping[str, str]) -> None:
    """Return if the pod of that volume context may use the cache.

    Raises:
        InvalidRequest: the context does not tell the pod's namespace.
        UnknownCache: there is no such cache.
        NotAllowed: the cache is not for that pod.
    """
    namespace = context.get(POD_NAMESPACE, "")
    if not namespace:
        raise InvalidRequest(
            f"volume_context has no {POD_NAMESPACE}: the CSIDriver object must say 'podInfoOnMount: true'"
        )
    _check(config, cache, namespace, context.get(SERVICE_ACCOUNT, ""))


def _check(config: Config, cache: str, namespace: str, service_account: str) -> None:
    declared = next((declared for declared in config.caches if declared.name == cache), None)
    if declared is None:
        usable = ", ".join(visible(config, namespace, service_account)) or "none"
        raise UnknownCache(f"there is no cache {cache!r}: caches for namespace {namespace!r} are {usable}")
    if not may_use(declared, namespace, service_account):
        account = f"service account {service_account!r} in " if service_account else ""
        raise NotAllowed(
            f"cache {cache!r} is not for {account}namespace {namespace!r}: ask the administrator to extend its access"
        )
