"""Telemetry of a call: trace headers, spans of batches, log lines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.context import Call
from chassis.telemetry import logs, metrics, tracing
from chassis.telemetry.endpoints import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_SAMPLED = SAMPLED[:-2] + "00"


@pytest.mark.parametrize("header", [SAMPLED, NOT_SAMPLED])
def test_a_trace_header_is_passed_on(header: str) -> None:
    assert tracing.valid_traceparent(header) == header


@pytest.mark.parametrize(
    "header",
    [
        "",
        "junk",
        SAMPLED.upper(),
        SAMPLED + "-more",
        SAMPLED[:-1],
        SAMPLED.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        SAMPLED[:-3] + "\n01",
    ],
)
def test_a_malformed_trace_header_is_dropped(header: str) -> None:
    assert tracing.valid_traceparent(header) == ""


def test_the_flag_says_whether_a_call_is_traced() -> None:
    flags = {flags: tracing.is_sampled(SAMPLED[:-2] + flags) for flags in ("00", "01", "02", "03", "ff")}

    assert flags == {"00": False, "01": True, "02": False, "03": True, "ff": True}
    assert not tracing.is_sampled("")


@pytest.fixture
def exporter(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("tests"))
    yield provider
    provider.shutdown()


def traced_call(provider: TracerProvider) -> Call:
    call = Call("/notes.v1.NoteService/GetNote", deadline=0)
    call.span = provider.get_tracer("tests").start_span("call")
    return call


def test_a_batch_is_linked_to_each_traced_call_and_stands_below_the_first(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    first, second = traced_call(provider), traced_call(provider)
    untraced = Call("/notes.v1.NoteService/GetNote", deadline=0)

    with tracing.batch_span("notes.get", [untraced, first, second]):
        inside = trace.get_current_span()

    [span] = exporter.get_finished_spans()
    assert inside.get_span_context().span_id == span.context.span_id
    assert span.parent.span_id == first.span.get_span_context().span_id
    assert [link.context.span_id for link in span.links] == [
        each.span.get_span_context().span_id for each in (first, second)
    ]
    assert dict(span.attributes) == {"shop.batch.size": 3}


def test_a_call_that_a_batch_makes_is_a_child_of_its_span(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    with tracing.batch_span("library.ask", [traced_call(provider)]):
        span, traceparent = tracing.begin_client_call(
            "/notes.v1.NoteService/FindNotes", server=Endpoint("library", 50051)
        )
        assert span
        tracing.end_client_call(span, "UNAVAILABLE")

    asked, batch = exporter.get_finished_spans()
    assert asked.parent.span_id == batch.context.span_id
    assert traceparent == f"00-{asked.context.trace_id:032x}-{asked.context.span_id:016x}-01"
    assert dict(asked.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "notes.v1.NoteService/FindNotes",
        "rpc.response.status_code": "UNAVAILABLE",
        "error.type": "UNAVAILABLE",
        "server.address": "library",
        "server.port": 50051,
    }
    assert asked.status.status_code is trace.StatusCode.ERROR


def test_a_batch_of_calls_that_are_not_traced_has_no_span(exporter: InMemorySpanExporter) -> None:
    with tracing.batch_span("notes.get", [Call("/a.B/C", deadline=0)]):
        pass

    assert exporter.get_finished_spans() == ()


def test_a_blocked_log_reader_delays_no_call_and_uses_bounded_memory() -> None:
    release = threading.Event()
    writer = logs.LineWriter([lambda _lines: release.wait() and None], max_waiting=10)
    lost_before = dropped()

    for _ in range(1000):
        writer.write(lambda: b"line")

    # Ten wait, ten more may be in the hands of who writes.
    assert dropped() - lost_before >= 980
    release.set()


def test_lines_are_written_in_order_before_flush_returns() -> None:
    written: list[bytes] = []
    writer = logs.LineWriter([written.append])

    for number in range(250):
        writer.write(f"{number}".encode)
    writer.flush()

    assert b"".join(written).split() == [f"{number}".encode() for number in range(250)]


def test_a_sink_that_fails_is_counted_and_the_next_one_gets_the_lines() -> None:
    written: list[bytes] = []

    def full_disk(_lines: bytes) -> None:
        raise OSError("no space left on device")

    writer = logs.LineWriter([full_disk, written.append])
    lost_before = dropped()
    writer.write(lambda: b"line")
    writer.flush()

    assert written == [b"line\n"]
    assert dropped() - lost_before == 1


def dropped() -> float:
    return metrics.REGISTRY.get_sample_value("shop_log_lines_dropped_total") or 0
