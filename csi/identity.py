"""The CSI Identity service: who the driver is, what it offers, whether it is ready."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import BoolValue

from cachefetch.errors import ConfigError
from csi.pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc

_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9.-]{0,61}[A-Za-z])")


def check_driver_name(name: str) -> str:
    """Return `name` if it can name a CSI driver.

    The rule is the intersection of the specification (GetPluginInfo: domain notation, at most 63 characters) and of
    csi-sanity, which wants a letter at both ends.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--driver-name: {name!r} is not allowed: use 2 to 63 letters, digits, '.' and '-', "
            "starting and ending with a letter"
        )
    return name


class Identity(csi_pb2_grpc.IdentityServicer):
    """Answers without touching the disk; Probe is called every few seconds."""

    def __init__(
        self,
        *,
        name: str,
        version: str,
        services: Sequence[csi_pb2.PluginCapability.Service.Type.ValueType],
        ready: Callable[[], bool],
        expands: bool = False,
    ) -> None:
        """Be `name` at `version`.

        Args:
            name: checked with `check_driver_name`.
            version: the package's, reported as vendor_version.
            services: what GetPluginCapabilities reports; the specification wants the same from node and controller.
            ready: whether RPCs can be served; must be cheap. False for long makes livenessprobe restart the driver,
                so a cache that is not here yet is no reason.
            expands: whether volumes can grow, while no node has them.
        """
        self._info = csi_pb2.GetPluginInfoResponse(name=name, vendor_version=version)
        capability = csi_pb2.PluginCapability
        capabilities = [capability(service=capability.Service(type=service)) for service in services]
        if expands:
            offline = capability.VolumeExpansion.OFFLINE
            capabilities.append(capability(volume_expansion=capability.VolumeExpansion(type=offline)))
        self._capabilities = csi_pb2.GetPluginCapabilitiesResponse(capabilities=capabilities)
        self._ready = ready

    def GetPluginInfo(  # noqa: N802 - the name in csi.proto
        self,
        request: csi_pb2.GetPluginInfoRequest,  # noqa: ARG002 - has no fields
        context: grpc.ServicerContext,  # noqa: ARG002 - given by gRPC
    ) -> csi_pb2.GetPluginInfoResponse:
        """Name and version."""
        return self._info

    def GetPluginCapabilities(  # noqa: N802 - the name in csi.proto
        self,
        request: csi_pb2.GetPluginCapabilitiesRequest,  # noqa: ARG002 - has no fields
        context: grpc.ServicerContext,  # noqa: ARG002 - given by gRPC
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """The services behind this socket, or behind that of the other half."""
        return self._capabilities

    def Probe(  # noqa: N802 - the name in csi.proto
        self,
        request: csi_pb2.ProbeRequest,  # noqa: ARG002 - has no fields
        context: grpc.ServicerContext,  # noqa: ARG002 - given by gRPC
    ) -> csi_pb2.ProbeResponse:
        """Whether RPCs are served; starting up is OK with ready=false (specification, Probe)."""
        return csi_pb2.ProbeResponse(ready=BoolValue(value=self._ready()))
