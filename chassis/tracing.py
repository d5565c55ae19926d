"""Traces, of the calls that the edge has chosen.

The edge decides which requests are traced and says so in the header `traceparent`. For all others nothing is made:
the header is passed on as it is. A traced call has a span for itself, one for each call that it makes, and one for
each SQL statement. They are exported with OTLP from a thread, out of a queue that drops what it has no room for.
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from sqlalchemy import event

from chassis.context import current_call

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.resources import Resource
    from sqlalchemy import Engine

    from chassis.context import Call

# W3C Trace Context, version 00. Whatever else a caller sends is not passed on, logged or kept.
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# What a stopping process waits for its last spans. It has 30 s in all, and 13 of them are for calls.
_SHUTDOWN_S: Final = 2.0

# The codes that say that the server is at fault, as OpenTelemetry's conventions for gRPC have it.
_SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_LONGEST_STATEMENT: Final = 2048
# What a statement does to which tables, near enough for the name of a span. What it is given is no table, nor is what
# follows the UPDATE of a lock or of a conflict.
_WRITES: Final = re.compile(r"(?<!FOR )(?<!DO )\b(INSERT|UPDATE|DELETE)(?: INTO| FROM)?\s+(\w+)")
_READS: Final = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)\b(?!\()")

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
    _end(span, call.code, is_fault=call.code in _SERVER_FAULTS)


def begin_client_call(method: str) -> tuple[Span | None, str]:
    """Begin the span of a call to another service; return it and the traceparent to send.

    It stands below the span of the call that is being served, or of the batch. Without one there is no span, and the
    traceparent is the one that came in, if any.
    """
    if not trace.get_current_span().is_recording():
        call = current_call()
        return None, call.traceparent if call else ""
    name = method.lstrip("/")
    attributes = {"rpc.system.name": "grpc", "rpc.method": name}
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


def trace_statements(engine: Engine) -> None:
    """Give each statement of a traced call a span: its text with placeholders, never its parameters."""
    event.listen(engine, "before_cursor_execute", _begin_statement)
    event.listen(engine, "after_cursor_execute", _end_statement)
    event.listen(engine, "handle_error", _fail_statement)


def _begin_statement(connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: Any) -> None:
    context.span = _begin(statement, database=connection.engine.url.database or "")


@contextlib.contextmanager
def statement_span(statement: str, *, database: str) -> Iterator[None]:
    """Give a statement that is run in the block a span if it is of a traced call, as trace_statements() does."""
    span = _begin(statement, database=database)
    try:
        yield
    except Exception as error:
        _fail(span, error)
        raise
    if span is not None:
        span.end()


def _begin(statement: str, *, database: str) -> Span | None:
    if not trace.get_current_span().is_recording():
        return None
    operation = statement.split(None, 1)[0].upper()
    return _tracer.start_span(
        _summary(statement) or operation,
        kind=SpanKind.CLIENT,
        attributes={
            "db.system.name": "postgresql",
            "db.namespace": database,
            "db.operation.name": operation,
            "db.query.text": statement[:_LONGEST_STATEMENT],
        },
    )


def _summary(statement: str) -> str:
    """Return what the statement does: `INSERT orders INSERT outbox`, `SELECT users`; empty if it names no table."""
    if writes := _WRITES.findall(statement):
        return " ".join(f"{verb} {table}" for verb, table in writes)
    table = _READS.search(statement)
    return f"SELECT {table[1]}" if table else ""


def _end_statement(_connection: Any, _cursor: Any, _statement: Any, _parameters: Any, context: Any, _many: Any) -> None:
    span: Span | None = getattr(context, "span", None)
    if span is not None:
        span.end()


def _fail_statement(failure: Any) -> None:
    _fail(getattr(failure.execution_context, "span", None), failure.original_exception)


def _fail(span: Span | None, error: BaseException) -> None:
    if span is not None:
        # The SQLSTATE; the message may hold what was to be written.
        sqlstate = getattr(error, "sqlstate", None) or type(error).__name__
        span.set_attributes({"db.response.status_code": sqlstate, "error.type": sqlstate})
        span.set_status(Status(StatusCode.ERROR))
        span.end()


def _end(span: Span, code: str, *, is_fault: bool) -> None:
    span.set_attribute("rpc.response.status_code", code)
    if code != "OK":
        span.set_attribute("error.type", code)
    if is_fault:
        span.set_status(Status(StatusCode.ERROR))
    span.end()


def _parent(traceparent: str) -> SpanContext:
    trace_id, span_id = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _traceparent(span: Span) -> str:
    own = span.get_span_context()
    return f"00-{own.trace_id:032x}-{own.span_id:016x}-01"
