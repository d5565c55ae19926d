"""Traces, of the calls that the edge has chosen.

The edge decides which requests are traced and says so in the header `traceparent`. For all others nothing is made:
the header is passed on as it is. A traced call has a span for itself, one for each call that it makes, and one for
each SQL statement. They are exported with OTLP from a thread, out of a queue that drops what it has no room for.
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from chassis.context import current_call
from chassis.telemetry.metrics import SERVER_FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opentelemetry.sdk.resources import Resource

    from chassis.context import Call
    from chassis.telemetry.endpoints import Endpoint

# W3C Trace Context, version 00. Whatever else a caller sends is not passed on, logged or kept.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# What a stopping process waits for its last spans. It has 30 s in all, and 13 of them are for calls.
_SHUTDOWN_S: Final = 2.0

_LONGEST_STATEMENT: Final = 2048

_tracer: Final = trace.get_tracer("shop.chassis")


def export(resource: Resource) -> TracerProvider:
    """Export the spans of this process from now on, as the standard variables OTEL_EXPORTER_OTLP_* and OTEL_BSP_* say.

    Once in a process. End it with stop().
    """
    # No shutdown at exit: it would wait half a minute for a receiver that hangs.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def stop(provider: TracerProvider) -> None:
    """Export what is left, for 2 s at most."""
    last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    last.start()
    last.join(_SHUTDOWN_S)


def valid_traceparent(header: str) -> str:
    """Return the header if it is one, else an empty text."""
    return header if len(header) == 55 and _TRACEPARENT.fullmatch(header) else ""


def is_sampled(traceparent: str) -> bool:
    """Return whether the call that came with this header is traced."""
    # The lowest bit of the last digit; most headers end in 00 or 01.
    return traceparent[-1:] in _SAMPLED


_SAMPLED: Final = frozenset("13579bdf")


def enter_call(call: Call) -> Span | None:
    """Begin the span of a traced call and make it the current one; return None if nothing is exported.

    From then on `call.traceparent` names this span, for whoever the call asks and for the events that it writes.
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
    # Never detached: a call is a task of its own, and its context ends with it.
    otel.attach(trace.set_span_in_context(span))
    return span


def end_call(span: Span, call: Call) -> None:
    """End the span of a traced call, with the code that was answered and the reason."""
    if call.caller.subject:
        span.set_attribute("enduser.id", call.caller.subject)
    if call.reason:
        span.set_attribute("shop.reason", call.reason)
    _end(span, call.code, is_fault=call.code in SERVER_FAULTS)


def begin_client_call(method: str, *, server: Endpoint) -> tuple[Span | None, str]:
    """Begin the span of a call to another service; return it and the traceparent to send.

    It stands below the span of the call that is being served, or of the batch. Without one there is no span, and the
    traceparent is the one that came in, if any.
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
    """Make one span for what is done for several calls at once, linked to each traced one. None is traced: no span.

    It stands in the trace of the first, and the statements in the block stand below it.

    Args:
        name: what is done, such as `orders.insert`.
        calls: whom it is done for.
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
    """Make a span for each event of a traced call that was sent to a stream.

    Args:
        stream: its name.
        sent: traceparent and id of each event.
        began_ns: when the sending began, since 1970.
    """
    for traceparent, event_id in sent:
        if is_sampled(traceparent):
            _message_span("send", stream, traceparent, event_id, began_ns=began_ns).end()


@contextlib.contextmanager
def events_processed(stream: str, *, group: str, events: Sequence[tuple[str, str]]) -> Iterator[dict[str, str]]:
    """Make a span for each event of a traced call that takes effect in the block; yield id and traceparent of each.

    A span stands in the trace of its event's call, and is linked to it. The statements in the block serve all of them,
    and stand below the first.

    Args:
        stream: its name.
        group: of the consumer.
        events: traceparent and id of each event.
    """
    sampled = [(traceparent, each) for traceparent, each in events if is_sampled(valid_traceparent(traceparent))]
    made = {each: _message_span("process", stream, traceparent, each) for traceparent, each in sampled}
    spans = {each: span for each, span in made.items() if span.is_recording()}
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
    """Begin a span as OpenTelemetry's conventions for messaging have it: in the trace of the call, linked to it."""
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
    """Begin the span of a statement, if the call that it serves is traced.

    Args:
        statement: its text, with placeholders.
        summary: what it does, for the span's name.
        database: its name.
        server: where that is.
    """
    if not trace.get_current_span().is_recording():
        return None
    return _tracer.start_span(
        summary,
        kind=SpanKind.CLIENT,
        attributes={
            "db.system.name": "postgresql",
            "db.namespace": database,
            "db.query.summary": summary,
            "db.query.text": statement[:_LONGEST_STATEMENT],
            **server.attributes(),
        },
    )


def end_statement(span: Span, *, sqlstate: str, error_type: str) -> None:
    """End the span of a statement.

    Args:
        span: of the statement.
        sqlstate: what the database answered to one that failed; empty if it did not.
        error_type: the same, or the name of the exception; empty if it did not fail.
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
