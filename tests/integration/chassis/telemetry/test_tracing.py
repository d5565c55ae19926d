"""Traces cost no call: whatever becomes of their receiver, calls are answered and memory does not grow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chassis.testing import LOOPBACK, new_uuid, plain_channel, refusal_of
from devstack.ports import ReservedPort
from devstack.traces import TraceReceiver
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import serving_process
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import KeyServiceStub, NoteServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.databases import TestDatabase
from tests.integration.replica import Replica

CALLS = 1500


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """Listen, take connections and what they send, and never answer."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield f"http://{LOOPBACK}:{server.getsockname()[1]}"


@contextlib.contextmanager
def gone() -> Iterator[str]:
    """Return an address without a listener."""
    port = ReservedPort()
    try:
        yield f"http://{LOOPBACK}:{port.number}"
    finally:
        port.release()


@pytest.mark.parametrize("receiver", [hanging, gone])
async def test_a_receiver_that_hangs_or_is_gone_costs_no_call_and_no_memory(
    receiver: contextlib.AbstractContextManager[str], notes_database: TestDatabase, tmp_path: Path
) -> None:
    with receiver() as endpoint:
        # A queue as small as a tenth of what the calls fill.
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_MAX_QUEUE_SIZE": "200"}
        env |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, **env) as replica:
            await call_traced(replica, CALLS)
            before = resident_kib(replica)
            await call_traced(replica, CALLS)
            grown = resident_kib(replica) - before
            replica.process.terminate()

            # 2 s for the last spans, and the rest of a stop.
            assert await replica.exit_code(within_s=20) == 0

    # A span takes some 3 KiB: all of them would be half as much again.
    assert grown < CALLS * 2
    handled = [line for line in replica.log("rpc.handled") if line["method"].endswith("GetKeys")]
    assert [line["code"] for line in handled] == ["OK"] * 2 * CALLS


async def test_the_spans_of_the_last_calls_are_exported_before_the_end(
    notes_database: TestDatabase, tmp_path: Path
) -> None:
    with TraceReceiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, **env) as replica:
            await call_traced(replica, 3)
            replica.process.terminate()
            await replica.exit_code(within_s=20)

        assert len(receiver.traces()) == 3


async def test_a_call_that_the_edge_does_not_trace_makes_no_span(notes_database: TestDatabase, tmp_path: Path) -> None:
    with TraceReceiver() as receiver:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
        async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, **env) as replica:
            await call_traced(replica, 2, flags="00")
            await call_traced(replica, 1)
            replica.process.terminate()
            await replica.exit_code(within_s=20)

        assert len(receiver.traces()) == 1
    lines = [line for line in replica.log("rpc.handled") if line["method"].endswith("GetKeys")]
    assert all(len(line["trace_id"]) == 32 for line in lines)


async def test_a_taken_port_is_reported_by_its_settings_name(notes_database: TestDatabase, tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = str(taken.getsockname()[1])

        with pytest.raises(AssertionError, match="METRICS_PORT"):
            async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, METRICS_PORT=port):
                pass


async def test_the_log_folder_gets_every_line_and_the_errors_apart(notes_copy: TestDatabase, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    env = {"DATABASE_URL": notes_copy.url, "LOG_DIR": str(logs)}
    async with serving_process(NOTES_PACKAGE, tmp_path, **env) as replica:
        notes_copy.query("DROP TABLE notes")
        async with plain_channel(replica.address) as channel:
            await refusal_of(NoteServiceStub(channel).GetNote(pb.GetNoteRequest(id=new_uuid())))
        replica.process.terminate()
        await replica.exit_code(within_s=20)

    assert (logs / "combined.log").read_text() == replica.output()
    errors = (logs / "error.log").read_text().splitlines()
    assert len(errors) == 1
    assert "rpc.defect" in errors[0]


async def call_traced(replica: Replica, count: int, *, flags: str = "01") -> None:
    """Make calls that need no database, ten at a time, of which the caller says that they are traced or not."""
    async with plain_channel(replica.address, token="") as channel:
        keys = KeyServiceStub(channel)
        numbers = iter(range(count))

        async def call_some() -> None:
            for _ in numbers:
                traceparent = f"00-{new_uuid().replace('-', '')}-00f067aa0ba902b7-{flags}"
                await keys.GetKeys(pb.GetKeysRequest(), metadata=(("traceparent", traceparent),), timeout=30)

        await asyncio.gather(*(call_some() for _ in range(10)))


def resident_kib(replica: Replica) -> int:
    status = Path(f"/proc/{replica.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
