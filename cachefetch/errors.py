"""Every error that goldlink raises on purpose, and what it means to a caller.

    GoldlinkError
    ├── InvalidRequest      a field of the request is missing or wrong
    ├── ConfigError         the configuration file is wrong; the command line exits with 2
    ├── UnknownCache        no such cache
    ├── UnknownVersion      no such version of the cache
    ├── UnknownVolume       no such volume, or not at that path
    ├── NotAllowed          the pod's namespace and service account may not use the cache
    ├── Conflict            the same name or id with other parameters
    ├── Precondition        something outside of goldlink is in the way
    ├── StoreUnfit          the state directory cannot hold a store
    ├── Busy                another call works on the same thing
    ├── NotReady            the version is not on this node yet
    ├── OutOfSpace          no room, or more than `maxBytes`
    ├── SourceError         the origin could not be reached or did not answer properly: the network is bad
    └── DataError           what the origin delivered is wrong: the data is bad
        └── UnsafeEntry     an entry that would escape, collide or exhaust

An error's text is one sentence that names the offending value and the remedy. It never contains a secret.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The gRPC status codes in use (google/rpc/code.proto), so that rules need no grpc import."""

    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15


class GoldlinkError(Exception):
    """Base of all errors that are raised on purpose."""

    code: ClassVar[Code] = Code.INTERNAL
    """What a gRPC caller gets."""
    exit_status: ClassVar[int] = 1
    """What a command line exits with."""


class InvalidRequest(GoldlinkError):
    """A field of the request is missing or wrong."""

    code = Code.INVALID_ARGUMENT
    exit_status = 2


class ConfigError(GoldlinkError):
    """The configuration is wrong; the text starts with the path of the key."""

    code = Code.FAILED_PRECONDITION
    exit_status = 2


class UnknownCache(GoldlinkError):
    """There is no cache of that name (for this caller)."""

    code = Code.NOT_FOUND


class UnknownVersion(GoldlinkError):
    """The cache has no such version."""

    code = Code.NOT_FOUND


class UnknownVolume(GoldlinkError):
    """There is no such volume, or it is not at that path."""

    code = Code.NOT_FOUND


class NotAllowed(GoldlinkError):
    """The caller may not use the cache. Says nothing about its content."""

    code = Code.PERMISSION_DENIED


class Conflict(GoldlinkError):
    """The same id was used before with other parameters."""

    code = Code.ALREADY_EXISTS


class Precondition(GoldlinkError):
    """Something that goldlink did not make is in the way; it is never deleted or unmounted."""

    code = Code.FAILED_PRECONDITION


class StoreUnfit(GoldlinkError):
    """The state directory cannot hold a store; the text says what to mount instead."""

    code = Code.FAILED_PRECONDITION


class Busy(GoldlinkError):
    """Another call works on the same volume or cache; nothing was changed, try again."""

    code = Code.ABORTED


class NotReady(GoldlinkError):
    """The version is not on this node yet; the text carries the progress, try again."""

    code = Code.ABORTED


class OutOfSpace(GoldlinkError):
    """There is no room for the version, or it exceeds its limit."""

    code = Code.RESOURCE_EXHAUSTED


class SourceError(GoldlinkError):
    """The origin could not be reached or did not answer properly; a later try may succeed."""

    code = Code.UNAVAILABLE


class DataError(GoldlinkError):
    """What the origin delivered is not what it should be; nothing of it was published."""

    code = Code.DATA_LOSS


class UnsafeEntry(DataError):
    """An entry of the origin's data would escape, collide or exhaust."""
