"""A receiver of traces, for `make observe` and for tests: OTLP over gRPC; it keeps the last traces in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb

from devstack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1 import trace_pb2

_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
_KEPT: Final = 1000  # traces; some 10 MB
_ERROR: Final = 2  # Status.STATUS_CODE_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One span, as its process exported it.

    Attributes:
        trace_id: in hex, as `parent_id` and the others.
        parent_id: empty for the first of a trace.
        service: the resource's `service.name`.
        kind: SERVER, CLIENT, INTERNAL.
        is_error: whether its status says so.
        links: the ids of the spans that it is linked to.
    """

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    is_error: bool
    links: tuple[str, ...]
    attributes: Mapping[str, object] = field(repr=False)
    resource: Mapping[str, object] = field(repr=False)

    @property
    def duration_ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


class TraceReceiver:
    """Receives the spans that processes export: `with TraceReceiver() as receiver: ...`.

    Args:
        credentials: for TLS; without them it listens in clear text.

    Attributes:
        endpoint: the value for OTEL_EXPORTER_OTLP_ENDPOINT.
    """

    endpoint: str

    def __init__(self, *, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials: Final = credentials
        self._lock: Final = threading.Lock()
        self._traces: Final[OrderedDict[str, list[ReceivedSpan]]] = OrderedDict()
        self._server: Final = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=pb.ExportTraceServiceRequest.FromString,
            response_serializer=pb.ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler})])

    def __enter__(self) -> Self:
        """Listen."""
        address = f"{LOOPBACK}:0"
        if self._credentials:
            self.endpoint = f"https://{LOOPBACK}:{self._server.add_secure_port(address, self._credentials)}"
        else:
            self.endpoint = f"http://{LOOPBACK}:{self._server.add_insecure_port(address)}"
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.stop(None).wait()

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Return the spans of a trace that have arrived so far, sorted by start."""
        with self._lock:
            return sorted(self._traces.get(trace_id, ()), key=lambda span: span.start_ns)

    def traces(self) -> list[list[ReceivedSpan]]:
        """Return all traces in memory, the newest first."""
        with self._lock:
            ids = list(reversed(self._traces))
        return [self.trace(trace_id) for trace_id in ids]

    def _export(self, request: pb.ExportTraceServiceRequest, _context: Any) -> pb.ExportTraceServiceResponse:
        with self._lock:
            for span in _spans(request):
                self._traces.setdefault(span.trace_id, []).append(span)
            while len(self._traces) > _KEPT:
                self._traces.popitem(last=False)
        return pb.ExportTraceServiceResponse()


def _spans(request: pb.ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _received(span, resource)


def _received(span: trace_pb2.Span, resource: Mapping[str, object]) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=str(resource.get("service.name", "")),
        name=span.name,
        kind=span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        is_error=span.status.code == _ERROR,
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_attributes(span.attributes),
        resource=resource,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
