"""Traces of the calls that the edge has sampled.

The edge decides which requests are traced and says so in the header `traceparent`. For other requests no span is made
and the header is passed on unchanged. A traced call has a span for itself, one for each call that it makes, and one for
each SQL statement. A thread exports the spans with OTLP from a queue; if the queue is full, spans are dropped.
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.context import current_call
from chassis.errors import StartupError
from chassis.telemetry.metrics.calls import SERVER_FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from chassis.context import Call
    from chassis.telemetry.endpoints import Endpoint

# W3C Trace Context, version 00. A header of any other form is not passed on, logged or stored.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# How long a stopping process waits for the export of its last spans. It has 30 s in all, 13 of them for its calls.
_SHUTDOWN_S: Final = 2.0

# Characters of a statement's text in its span.
_MAX_STATEMENT: Final = 2048

_tracer: Final = trace.get_tracer("shop.chassis")


def export(resource: Resource) -> TracerProvider:
    """Export the spans of this process from now on, as the standard variables OTEL_EXPORTER_OTLP_* and OTEL_BSP_* say.

    Call it once in a process, and stop() at the end.

    Raises:
        StartupError: one of the variables makes no sense.
    """
    # Not above: the exporter brings 13 MB, gRPC among them, for which a worker without traces has no use.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  13 MB, see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  the same
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  the same

    try:
        # No shutdown at exit: if the receiver hangs, it would wait half a minute.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise StartupError(f"A variable OTEL_EXPORTER_OTLP_… or OTEL_BSP_… makes no sense: {error}") from error
    trace.set_tracer_provider(provider)
    return provider


def stop(provider: TracerProvider) -> None:
    """Export the remaining spans, for at most 2 s."""
    exporting = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    exporting.start()
    exporting.join(_SHUTDOWN_S)


def valid_traceparent(header: str) -> str:
    """Return the header if it is valid, else an empty text."""
    return header if len(header) == 55 and _TRACEPARENT.fullmatch(header) else ""


def is_sampled(traceparent: str) -> bool:
    """Return whether the header's sampled flag is set; False for an empty header."""
    # The flag is the lowest bit of the last digit.
    return traceparent[-1:] in _SAMPLED


_SAMPLED: Final = frozenset("13579bdf")


def enter_call(call: Call) -> Span | None:
    """Start the span of a traced call and make it the current span; return None if spans are not exported.

    Sets `call.traceparent` to this span, so that the services that the call asks and the events that it writes have it
    as their parent.
    """
    service, _, method = call.method[1:].partition("/")
    span = _tracer.start_span(
        f"{service}/{method}",
        context=trace.set_span_in_context(NonRecordingSpan(_parent(call.traceparent))),
        kind=SpanKind.SERVER,
        attributes={"rpc.system.name": "grpc", "rpc.method": f"{service}/{method}", "shop.request_id": call.request_id},
    )
    if not span.is_recording():
        return None
    call.traceparent = _traceparent(span)
    call.span = span
    # No detach: each call is a task, and its context ends with it.
    otel.attach(trace.set_span_in_context(span))
    return span


def end_call(span: Span, call: Call) -> None:
    """End the span of a traced call; add its caller, its status code and its error reason."""
    if call.caller.subject:
        span.set_attribute("enduser.id", call.caller.subject)
    if call.reason:
        span.set_attribute("shop.reason", call.reason)
    _end(span, call.code, is_fault=call.code in SERVER_FAULTS)


def begin_client_call(method: str, *, server: Endpoint) -> tuple[Span | None, str]:
    """Start the span of a call to another service; return it and the traceparent to send.

    Its parent is the span of the call being served, or of the batch. If that is not traced, no span is made and the
    traceparent is the one of the call being served, or empty.
    """
    if not trace.get_current_span().is_recording():
        call = current_call()
        return None, call.traceparent if call else ""
    name = method.lstrip("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name, **server.attributes()}
    span = _tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
    return span, _traceparent(span)


def end_client_call(span: Span, code: str) -> None:
    """End the span of a call to another service with the code of its answer."""
    _end(span, code, is_fault=code != "OK")


@contextlib.contextmanager
def batch_span(name: str, calls: Sequence[Call]) -> Iterator[None]:
    """Make one span for work that serves several calls; if none of them is traced, make none.

    The span is a child of the first traced call's span and has a link to each of them. It is the parent of the
    statements in the block.
    """
    spans = [call.span for call in calls if call.span is not None]
    if not spans:
        yield
        return
    span = _tracer.start_span(
        name,
        context=trace.set_span_in_context(spans[0]),
        links=[Link(each.get_span_context()) for each in spans],
        attributes={"shop.batch.size": len(calls)},
    )
    with trace.use_span(span, end_on_exit=True, record_exception=False):
        yield


def events_sent(stream: str, sent: Iterable[tuple[str, str]], *, began_ns: int) -> None:
    """Make a span for each event, given as traceparent and id, that was sent and whose call was traced.

    The sending began at `began_ns`, in nanoseconds since 1970.
    """
    for traceparent, event_id in sent:
        if is_sampled(traceparent):
            _message_span("send", stream, traceparent, event_id, began_ns=began_ns).end()


@contextlib.contextmanager
def events_processed(stream: str, *, group: str, events: Sequence[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Make a span for each event, given as traceparent and id, that takes effect in the block, if its call was traced.

    Each span belongs to the trace of its event's call and has a link to it. The statements in the block serve all
    events; the first span is their parent.

    Yields:
        The traceparent of each span, by the event's id.
    """
    sampled = [(traceparent, each) for traceparent, each in events if is_sampled(valid_traceparent(traceparent))]
    started = {each: _message_span("process", stream, traceparent, each) for traceparent, each in sampled}
    spans = {each: span for each, span in started.items() if span.is_recording()}
    if not spans:
        yield {}
        return
    try:
        with trace.use_span(next(iter(spans.values())), record_exception=False):
            yield {each: _traceparent(span) for each, span in spans.items()}
    finally:
        for span in spans.values():
            span.set_attribute("messaging.consumer.group.name", group)
            span.end()


def _message_span(operation: str, stream: str, traceparent: str, event_id: str, *, began_ns: int | None = None) -> Span:
    """Start a span by OpenTelemetry's conventions for messaging: a child of the call's span, with a link to it."""
    call = _parent(traceparent)
    return _tracer.start_span(
        f"{operation} {stream}",
        context=trace.set_span_in_context(NonRecordingSpan(call)),
        kind=SpanKind.PRODUCER if operation == "send" else SpanKind.CONSUMER,
        links=[Link(call)],
        start_time=began_ns,
        attributes={
            "messaging.system": "redis",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": stream,
            "messaging.message.id": event_id,
        },
    )


def begin_statement(statement: str, *, summary: str, database: str, server: Endpoint) -> Span | None:
    """Start the span of a statement, named by its summary; return None if the call that it serves is not traced."""
    if not trace.get_current_span().is_recording():
        return None
    return _tracer.start_span(
        summary,
        kind=SpanKind.CLIENT,
        attributes={
            "db.system.name": "postgresql",
            "db.namespace": database,
            "db.query.summary": summary,
            "db.query.text": statement[:_MAX_STATEMENT],
            **server.attributes(),
        },
    )


def end_statement(span: Span, *, sqlstate: str, error_type: str) -> None:
    """End the span of a statement.

    `sqlstate` is empty unless the database refused the statement; `error_type` is the same or, without an answer, the
    exception's name.
    """
    if sqlstate:
        span.set_attribute("db.response.status_code", sqlstate)
    if error_type:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _end(span: Span, code: str, *, is_fault: bool) -> None:
    span.set_attribute("rpc.response.status_code", code)
    if is_fault:
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _parent(traceparent: str) -> SpanContext:
    trace_id, span_id = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _traceparent(span: Span) -> str:
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-01"
