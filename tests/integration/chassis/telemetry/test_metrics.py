"""Each event of the service is counted once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from chassis.client.breaker import Breaker, BreakerSettings, CircuitOpen
from chassis.database import Database
from chassis.events import backlog
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import new_uuid, refusal_of, until
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase
    from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub


def value(name: str, **labels: str) -> float:
    """Return a metric's value; 0 if there is none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0


async def test_a_write_that_is_answered_again_is_counted(notes: NoteServiceStub) -> None:
    method = {"rpc_method": "notes.v1.NoteService/CreateNote"}
    before = value("shop_idempotent_replays_total", **method)
    create = create_note_request(request_id=new_uuid())

    for _ in range(3):
        await notes.CreateNote(create)

    assert value("shop_idempotent_replays_total", **method) - before == 2


async def test_calls_are_counted_by_method_and_code(notes: NoteServiceStub) -> None:
    labels = {"rpc_method": "notes.v1.NoteService/GetNote", "rpc_response_status_code": "NOT_FOUND"}
    labels |= {"rpc_system_name": "grpc", "error_type": ""}
    before = value("rpc_server_call_duration_seconds_count", **labels)

    await refusal_of(notes.GetNote(pb.GetNoteRequest(id=new_uuid())))

    assert value("rpc_server_call_duration_seconds_count", **labels) - before == 1
    assert value("shop_calls_active", rpc_method="notes.v1.NoteService/GetNote") == 0


async def test_the_outbox_s_backlog_is_shown(notes: NoteServiceStub, notes_database: TestDatabase) -> None:
    for _ in range(2):
        await notes.CreateNote(create_note_request())
    notes_database.query("UPDATE outbox SET occurred_at = now() - interval '1 hour' WHERE position = 1")
    database = Database(database_settings(notes_database.url), name="watch")
    watching = asyncio.create_task(backlog.watch_forever(database, every_s=0.01))

    async def is_shown() -> bool:
        return value("shop_outbox_unpublished_events") == 2

    await until(is_shown)
    age_s = value("shop_outbox_oldest_age_seconds")
    [(size,)] = notes_database.query("SELECT pg_total_relation_size('outbox')")
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    await database.close()

    assert 3599 < age_s < 3700  # the clock of a machine may be set back a little
    assert value("shop_outbox_size_bytes") == size > 0


async def test_a_breaker_shows_its_state_and_what_it_rejects() -> None:
    async def fail() -> None:
        raise ConnectionResetError

    breaker = Breaker("shown", BreakerSettings(fail_max=1), is_failure=lambda _error: True)
    with pytest.raises(ConnectionResetError):
        await breaker.call(fail)
    with pytest.raises(CircuitOpen):
        await breaker.call(fail)

    states = {state: value("shop_breaker_state", dependency="shown", state=state) for state in ("closed", "open")}
    assert states == {"closed": 0, "open": 1}
    assert value("shop_breaker_rejections_total", dependency="shown") == 1
