"""What the cluster is told of a node's caches, as objects of its API. Pure: no clock, no network, no store.

A NodeCache says what one cache is like on one node; its definition is `crds/nodecaches.yaml` of the chart. An event of
a pod says which version the pod has, or why it waits for one; `kubectl describe pod` shows it.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cachefetch.model import short_id
from cachefetch.terminal import many, size
from cachefetch.waiting import Pod
from cachefetch.work import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cachefetch.listing import Row
    from cachefetch.model import Version
    from cachefetch.records import VolumeRecord
    from cachefetch.waiting import Wait
    from cachefetch.work import Status

GROUP = "goldlink.dev"
VERSION = "v1alpha1"
_NAME_MAX = 253
"""Characters of an object's name (Kubernetes documentation, "Object Names and IDs")."""
_POD_PART = 200  # characters of a pod's name in the name of its event; a digest follows


class Place(NamedTuple):
    """Who tells: the fetcher of a node."""

    node: str
    pod: Pod


class Told(NamedTuple):
    """What was told last about a wait."""

    text: str
    first: float
    last: float
    """Seconds since the epoch, as `first`."""
    times: int


def caches_path(place: Place, name: str = "") -> str:
    """Where NodeCaches are, or one of them."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{place.pod.namespace}/nodecaches" + (f"/{name}" if name else "")


def node_path(place: Place) -> str:
    """Where the node itself is."""
    return f"/api/v1/nodes/{place.node}"


def event_path(event: dict[str, Any]) -> str:
    """Where an event is."""
    meta = event["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/events/{meta['name']}"


def selector(place: Place) -> str:
    """The label that NodeCaches of this fetcher have and no others."""
    return f"{GROUP}/fetcher={place.pod.uid}"


def node_cache(place: Place, rows: Sequence[Row], status: Status | None) -> dict[str, Any]:
    """One cache on this node.

    Args:
        place: who tells. The object ends with that pod, and so with its node or with an uninstall.
        rows: the versions of the cache, or one row without a version.
        status: what is done about the cache; None: it is not declared any more.
    """
    cache = rows[0].cache
    current = next((row.version for row in rows if row.current and row.version), None)
    report = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "NodeCache",
        "metadata": {
            "name": _cache_name(cache, place.node),
            "namespace": place.pod.namespace,
            "labels": {f"{GROUP}/cache": cache, f"{GROUP}/fetcher": place.pod.uid},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": place.pod.name, "uid": place.pod.uid}],
        },
        "cache": cache,
        "node": place.node,
        "users": sum(row.users for row in rows),
        "versions": [_version(row) for row in rows if row.id],
        **_doing(status, current),
    }
    return report | ({"current": _details(current)} if current else {})


def mounted(place: Place, record: VolumeRecord, version: Version | None) -> dict[str, Any]:
    """The event of a pod that has a volume; `version` is None when its manifest cannot be read."""
    what = f"version {short_id(record.version)} of cache {record.cache!r}"
    if version is not None:
        published = _time(version.published)
        what += f" ({many(version.totals.files, 'file')}, {size(version.totals.bytes)}, published {published})"
    shows = "is a private view of" if record.access == "private" else "shows"
    told = Told(f"volume {_volume_name(record)!r} {shows} {what}", record.created, record.created, 1)
    pod = Pod(record.namespace, record.pod, record.pod_uid)
    return _event(place, pod, "CacheMounted", record.id, told)


def awaited(place: Place, wait: Wait, told: Told, *, failing: bool) -> dict[str, Any]:
    """The event of a pod that waits; `failing`: it will go on until somebody does something."""
    return _event(place, wait.pod, "CacheAwaited", wait.cache, told, warning=failing)


def explain(place: Place, wait: Wait, status: Status) -> str:
    """Why a pod waits, and how far it is."""
    return f"cache {wait.cache!r} is not on {place.node} yet: {status.text}"


def _cache_name(cache: str, node: str) -> str:
    name = f"{cache}.{node}"
    return name if len(name) <= _NAME_MAX else f"{cache}.{_digest(node)}"


def _doing(status: Status | None, current: Version | None) -> dict[str, str]:
    """State and message, which change only when there is something new, but for the progress of a fetch."""
    if status is None:
        return {
            "state": "Undeclared",
            "message": "it is not declared any more: versions stay while volumes use them",
        }
    if status.state in {State.FETCHING, State.UNHELD}:
        return {"state": status.state.capitalize(), "message": status.text}
    if status.error:
        return {"state": "Failing", "message": status.error}
    if current is not None:
        return {"state": "Ready", "message": ""}
    if status.state is State.IDLE:
        return {"state": "Empty", "message": "it is fetched when the first volume asks for it"}
    return {"state": "Fetching", "message": status.text}


def _version(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"id": row.id, "users": row.users}
    if row.version is None:
        return found | {"damaged": True}
    return found | {"files": row.version.totals.files, "bytes": row.version.totals.bytes}


def _details(version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "short": version.short,
        "size": size(version.totals.bytes),
        "published": _time(version.published),
    }


def _volume_name(record: VolumeRecord) -> str:
    """As the pod calls it, or the PersistentVolume: kubelet's target is …/kubernetes.io~csi/NAME/mount."""
    parts = record.target.split("/")
    return parts[-2] if len(parts) > 1 else record.id


def _event(place: Place, pod: Pod, reason: str, about: str, told: Told, *, warning: bool = False) -> dict[str, Any]:
    """An event of the pod, with a name of its own for each thing that it is about: a repeated one changes it."""
    name = f"{pod.name[:_POD_PART].rstrip('-.')}.{_digest(pod.uid, reason, about)}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "reason": reason,
        "message": told.text,
        "type": "Warning" if warning else "Normal",
        "source": {"component": "goldlink", "host": place.node},
        "firstTimestamp": _time(told.first),
        "lastTimestamp": _time(told.last),
        "count": told.times,
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
