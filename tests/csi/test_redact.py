"""No secret of any CSI message reaches the text, and the rest does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.message_factory import GetMessageClass

from csi.pb import csi_pb2
from csi.redact import render

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

SECRET = "hunter2"
WITH_SECRETS = [
    descriptor
    for descriptor in csi_pb2.DESCRIPTOR.message_types_by_name.values()
    if any(field.GetOptions().Extensions[csi_pb2.csi_secret] for field in descriptor.fields)
]


@pytest.mark.parametrize("descriptor", WITH_SECRETS, ids=lambda descriptor: descriptor.name)
def test_secret_fields_of_every_message_are_left_out_and_the_request_stays_whole(descriptor: Descriptor) -> None:
    message: Message = GetMessageClass(descriptor)()
    message.secrets[SECRET] = SECRET  # type: ignore[attr-defined] # all these messages have the field
    assert SECRET in str(message)
    assert SECRET not in render(message)
    assert message.secrets[SECRET] == SECRET  # type: ignore[attr-defined] # as above


def test_all_secrets_of_the_protocol_are_covered() -> None:
    names = {descriptor.name for descriptor in WITH_SECRETS}
    assert {"NodePublishVolumeRequest", "CreateVolumeRequest", "NodeExpandVolumeRequest", "GetSnapshotRequest"} <= names
    fields = [
        field.name for descriptor in csi_pb2.DESCRIPTOR.message_types_by_name.values() for field in descriptor.fields
    ]
    assert fields.count("secrets") == len(WITH_SECRETS)


def test_service_account_tokens_are_hidden_and_the_other_attributes_shown() -> None:
    request = csi_pb2.NodePublishVolumeRequest(
        volume_id="v",
        volume_context={"cache": "deps", "csi.storage.k8s.io/serviceAccount.tokens": SECRET},
    )
    text = render(request)
    assert SECRET not in text
    assert '"deps"' in text
    assert 'value: "***"' in text
    assert request.volume_context["csi.storage.k8s.io/serviceAccount.tokens"] == SECRET


def test_tokens_are_hidden_in_nested_and_repeated_messages() -> None:
    volume = csi_pb2.Volume(volume_id="v", volume_context={"csi.storage.k8s.io/serviceAccount.tokens": SECRET})
    nested = csi_pb2.CreateVolumeResponse(volume=volume)
    repeated = csi_pb2.ListVolumesResponse(entries=[csi_pb2.ListVolumesResponse.Entry(volume=volume)])
    for message in (nested, repeated):
        assert SECRET in str(message)
        assert SECRET not in render(message)
        assert 'volume_id: "v"' in render(message)


def test_fields_of_a_later_protocol_are_left_out() -> None:
    later = csi_pb2.ProbeRequest.FromString(b"\xfa\x01\x07hunter2")  # field 31, length-delimited
    assert SECRET.encode() in later.SerializeToString()
    assert SECRET not in render(later)


def test_text_is_one_line() -> None:
    request = csi_pb2.NodePublishVolumeRequest(volume_id="a\nb", target_path="/x", readonly=True)
    assert render(request) == 'volume_id: "a\\nb" target_path: "/x" readonly: true'
