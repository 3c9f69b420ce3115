"""Requests as text for the log, without their secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import text_format

from csi.pb import csi_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

_TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"
"""Where kubelet puts service account tokens in volume_context (`tokenRequests` of the CSIDriver object)."""


def render(message: Message) -> str:
    """`message` as one line of protobuf text format.

    Left out at any depth: fields with the option `csi_secret` (CSI specification, "Secrets Requirements") and fields
    that our csi.proto does not know, which may be secrets of a later one. Service account tokens are shown as `***`.
    """
    shown = type(message)()
    shown.CopyFrom(message)
    _redact(shown)
    return text_format.MessageToString(shown, as_one_line=True, print_unknown_fields=False)


def _redact(message: Message) -> None:
    for field, value in message.ListFields():
        if field.GetOptions().Extensions[csi_pb2.csi_secret]:
            message.ClearField(field.name)
        elif _is_map(field):
            if _TOKENS in value:
                value[_TOKENS] = "***"
        elif field.message_type is not None:
            for child in value if field.is_repeated else [value]:
                _redact(child)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
