"""Identity answers what it was built with, and names are those that csi-sanity accepts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefetch.errors import ConfigError
from csi.identity import Identity, check_driver_name
from csi.pb import csi_pb2

if TYPE_CHECKING:
    import grpc

SANITY = re.compile(r"^[a-zA-Z][A-Za-z0-9-\\.\\_]{0,61}[a-zA-Z]$")
"""identity.go of csi-sanity 5.5."""
SERVICE = csi_pb2.PluginCapability.Service
CONTEXT = cast("grpc.ServicerContext", None)  # Identity never looks at it


def identity(*, ready: bool = True) -> Identity:
    return Identity(
        name="csi.goldlink.dev",
        version="1.2.3",
        services=[SERVICE.CONTROLLER_SERVICE, SERVICE.GROUP_CONTROLLER_SERVICE],
        ready=lambda: ready,
    )


def test_plugin_info_has_name_and_version() -> None:
    info = identity().GetPluginInfo(csi_pb2.GetPluginInfoRequest(), CONTEXT)
    assert (info.name, info.vendor_version, dict(info.manifest)) == ("csi.goldlink.dev", "1.2.3", {})


def test_capabilities_are_the_given_services() -> None:
    answer = identity().GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest(), CONTEXT)
    assert [capability.service.type for capability in answer.capabilities] == [
        SERVICE.CONTROLLER_SERVICE,
        SERVICE.GROUP_CONTROLLER_SERVICE,
    ]


@pytest.mark.parametrize("ready", [True, False])
def test_probe_says_explicitly_whether_the_driver_is_ready(ready: bool) -> None:
    answer = identity(ready=ready).Probe(csi_pb2.ProbeRequest(), CONTEXT)
    assert answer.HasField("ready")
    assert answer.ready.value is ready


@pytest.mark.parametrize("name", ["csi.goldlink.dev", "ab", "a" * 63, "A-1.b"])
def test_good_names_come_back(name: str) -> None:
    assert check_driver_name(name) == name
    assert SANITY.fullmatch(name)


@pytest.mark.parametrize("name", ["", "a", "1a", "a1", "a" * 64, "-a", "a.", "a_b", "a b", "a/b", "é.de", "ab\n"])
def test_bad_names_are_refused_by_value(name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--driver-name: {name!r}")):
        check_driver_name(name)


@given(st.text(st.sampled_from("aZ1.-_é/ \n"), max_size=70))
def test_what_is_accepted_is_accepted_by_csi_sanity_too(name: str) -> None:
    try:
        check_driver_name(name)
    except ConfigError:
        return
    assert SANITY.fullmatch(name)
