"""One trace goes from the call over the bus to the effect, and to what the effect tells."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from chassis.events.redis_streams import stream_of
from chassis.telemetry import tracing
from chassis.testing import until
from tests.integration.event_flow import consumer, relay, running
from tests.support.notes_svc import consumer as notes_consumer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tests.integration.databases import TestDatabase

STREAM = stream_of("author")
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_WRITE = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    VALUES (
        gen_random_uuid(), 'author.closed', %s, 1, jsonb_build_object('authorId', %s::text, 'state', 'CLOSED'),
        %s, now()
    )
"""
_NOTE = """
    INSERT INTO notes (id, author_id, body, labels, state, created_at, updated_at, version)
    VALUES (gen_random_uuid(), %s, '', '[]', 'OPEN', now(), now(), 1)
"""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The exported spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    return exporter


async def close_author(
    authors: TestDatabase, notes: TestDatabase, redis_url: str, *, traceparent: str
) -> tuple[uuid.UUID, str]:
    """Let the end of an author with an open note take effect; return the author, and the trace of what that told."""
    author_id = uuid.uuid4()
    notes.query(_NOTE, author_id)
    authors.query(_WRITE, author_id, author_id, traceparent)

    async def is_told() -> bool:
        return notes.query("SELECT 1 FROM outbox WHERE type = 'note.changed'") != []

    async with (
        relay(authors.url, redis=redis_url, resource="author") as publishing,
        consumer(notes.url, notes_consumer.handle, redis=redis_url, resource="author") as consuming,
        running(publishing.run, consuming.run),
    ):
        await until(is_told)
    [(told,)] = notes.query("SELECT traceparent FROM outbox")
    return author_id, told


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    [found] = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


async def test_the_way_of_a_sampled_event_is_one_trace(
    authors_database: TestDatabase, notes_database: TestDatabase, redis_url: str, spans: InMemorySpanExporter
) -> None:
    traceparent = f"00-{TRACE_ID}-{SPAN_ID}-01"

    _, told = await close_author(authors_database, notes_database, redis_url, traceparent=traceparent)

    sent, processed = named(spans, f"send {STREAM}"), named(spans, f"process {STREAM}")
    assert (sent.kind, processed.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    for span in (sent, processed):
        assert f"{span.context.trace_id:032x}" == TRACE_ID
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == SPAN_ID
        assert [f"{link.context.span_id:016x}" for link in span.links] == [SPAN_ID]
        assert span.attributes is not None
        assert span.attributes["messaging.destination.name"] == STREAM
    assert told == f"00-{TRACE_ID}-{processed.context.span_id:016x}-01"
    below = [
        span for span in spans.get_finished_spans() if span.parent and span.parent.span_id == processed.context.span_id
    ]
    assert any(span.name.startswith("UPDATE notes") for span in below)


@pytest.mark.parametrize("traceparent", ["", f"00-{TRACE_ID}-{SPAN_ID}-00"])
async def test_an_event_that_is_not_sampled_makes_no_span_and_its_trace_is_passed_on(
    authors_database: TestDatabase,
    notes_database: TestDatabase,
    redis_url: str,
    spans: InMemorySpanExporter,
    traceparent: str,
) -> None:
    _, told = await close_author(authors_database, notes_database, redis_url, traceparent=traceparent)

    assert told == traceparent
    assert spans.get_finished_spans() == ()
