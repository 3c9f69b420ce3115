"""What happens around every RPC: one interceptor maps errors, one logs, one measures. Handlers only return or raise.

The order is fixed by `chain`: mapping is outermost, so that the other two see the exception itself.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from cachefetch.logs import fields
from cachefetch.rpc import OK, outcome
from csi.logs import collecting
from csi.redact import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.metrics import Metrics

_log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
Handler: TypeAlias = "Callable[[Request, grpc.ServicerContext], Response]"

_QUIET = frozenset({
    "GetPluginCapabilities",
    "GetPluginInfo",
    "ControllerGetCapabilities",
    "GroupControllerGetCapabilities",
    "NodeGetCapabilities",
    "NodeGetVolumeStats",
    "Probe",
})  # fmt: skip
"""Called every few seconds or for every volume each minute; their successes are logged at debug level."""


def chain(metrics: Metrics) -> list[grpc.ServerInterceptor]:
    """The interceptors of a server, outermost first."""
    return [Mapping(), Logging(), Measuring(metrics)]


class _Around(grpc.ServerInterceptor):
    """Puts `around` around the handlers.

    Streaming calls pass unchanged: CSI has them in SnapshotMetadata only, which is not served.
    """

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Request, Response] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Request, Response] | None:
        """Wrap what would serve the call; an unknown method has no handler and is answered UNIMPLEMENTED by gRPC."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        inner, method = handler.unary_unary, handler_call_details.method.rpartition("/")[2]

        def serve(request: Request, context: grpc.ServicerContext) -> Response:
            return self.around(method, inner, request, context)

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @abstractmethod
    def around(
        self, method: str, inner: Handler[Request, Response], request: Request, context: grpc.ServicerContext
    ) -> Response:
        """Call `inner`."""


class Mapping(_Around):
    """Answers with the code and the text of what was raised, and nothing else: CSI wants empty details."""

    def around(
        self, method: str, inner: Handler[Request, Response], request: Request, context: grpc.ServicerContext
    ) -> Response:
        """Call `inner`, end the RPC with `outcome` when it raises."""
        try:
            return inner(request, context)
        except Exception as error:  # noqa: BLE001 - the boundary of the RPC; Logging has logged it
            context.abort(*outcome(error, method))


class Logging(_Around):
    """Writes one line for each RPC: `event=rpc method=… code=… ms=… volume=…`, what the handler annotated, the error.

    The request is part of it, without its secrets, when debug lines are on. Needs to be inside of `Mapping`.
    """

    def around(
        self, method: str, inner: Handler[Request, Response], request: Request, context: grpc.ServicerContext
    ) -> Response:
        """Call `inner` and write its line."""
        start = time.perf_counter()
        with collecting() as notes:
            error: Exception | None = None
            try:
                return inner(request, context)
            except Exception as raised:
                error = raised
                raise
            finally:
                seconds = time.perf_counter() - start
                if not context.is_active():
                    notes["client"] = "gone"  # cancelled or past its deadline: it does not know the outcome
                _write(method, request, seconds, notes, error)


class Measuring(_Around):
    """Counts RPCs and their time. Needs to be inside of `Mapping`."""

    def __init__(self, metrics: Metrics) -> None:
        """Measure into `metrics`."""
        self._metrics = metrics

    def around(
        self, method: str, inner: Handler[Request, Response], request: Request, context: grpc.ServicerContext
    ) -> Response:
        """Call `inner` and record its time under its code."""
        code = OK.code
        start = time.perf_counter()
        try:
            with self._metrics.rpc_in_flight.track_inprogress():
                return inner(request, context)
        except Exception as error:
            code = outcome(error, method).code
            raise
        finally:
            seconds = time.perf_counter() - start
            self._metrics.rpc_seconds.labels(method=method, code=code.name).observe(seconds)


def _write(method: str, request: object, seconds: float, notes: dict[str, object], error: Exception | None) -> None:
    code, text = outcome(error, method) if error else OK
    level = _level(method, code)
    if not _log.isEnabledFor(level):
        return
    line = {"method": method, "code": code.name, "ms": round(seconds * 1000, 3), "volume": _volume(request), **notes}
    if text:
        line["error"] = text
    if _log.isEnabledFor(logging.DEBUG) and isinstance(request, Message):
        line["request"] = render(request)
    _log.log(level, "rpc", exc_info=error if code is grpc.StatusCode.INTERNAL else None, extra=fields(**line))


def _level(method: str, code: grpc.StatusCode) -> int:
    if code is grpc.StatusCode.OK:
        return logging.DEBUG if method in _QUIET else logging.INFO
    return logging.ERROR if code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS} else logging.WARNING


def _volume(request: object) -> object:
    return getattr(request, "volume_id", "") or None
