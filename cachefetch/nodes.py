"""Which caches a node of a cluster holds: those whose `nodeSelector` its labels match. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cachefetch.config import Cache


class Node(NamedTuple):
    """The node that a fetcher is on."""

    name: str
    labels: Mapping[str, str] | None = None
    """None: not known yet."""


def unheld(cache: Cache, node: Node | None) -> str:
    """Why the node does not hold the cache, and the remedy; empty: it does. None: there is no cluster, and no labels.

    Each label must be there with that very value, as with a pod's `nodeSelector` (Kubernetes documentation, "Assigning
    Pods to Nodes"). Until the labels are known, only caches without a selector are held.
    """
    if node is None or not cache.node_selector:
        return ""
    wanted = f"cache {cache.name!r} is for nodes with {_labels(cache.node_selector)}"
    if node.labels is None:
        return f"{wanted}, and the API server has not told the labels of node {node.name!r} yet: it is asked again"
    missing = {key: value for key, value in cache.node_selector.items() if node.labels.get(key) != value}
    if not missing:
        return ""
    return (
        f"{wanted}, and node {node.name!r} has not {_labels(missing)}: label the node, change the nodeSelector of the "
        "cache, or have the pod run on such a node"
    )


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
