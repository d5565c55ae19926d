"""`serve` and `migrate`: a replica's start and stop, and the message if it cannot start."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from shop.system.v1 import system_service_pb2
from shop.system.v1.system_service_pb2_grpc import SystemServiceStub

from chassis.service import services
from chassis.testing import LOOPBACK, new_uuid, plain_channel, refusal_of, until
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import NOT_SERVING, run, serving_process
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.databases import TestDatabase

NO_DATABASE = f"postgresql://nobody:wrong@{LOOPBACK}:1/none"

# Ending takes a moment; this is for a machine that is busy with other things, and still far below the 30 s allowed.
MARGIN_S = 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopping_replica_reports_not_serving_and_serves_until_its_drain_is_over(
    notes_database: TestDatabase, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, DRAIN_S="1") as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())

        replica.process.send_signal(number)
        told = time.monotonic()
        await replica.until_health(NOT_SERVING)
        assert await notes.GetNote(pb.GetNoteRequest(id=note.id)) == note
        health = await SystemServiceStub(channel).GetHealth(system_service_pb2.GetHealthRequest())
        exit_code = await replica.exit_code(within_s=1 + MARGIN_S)
        took_s = time.monotonic() - told

    assert health.status == system_service_pb2.HEALTH_STATUS_DRAINING
    assert exit_code == 0
    assert took_s >= 1
    for event in ("server.started", "server.draining", "server.stopped"):
        assert len(replica.log(event)) == 1


async def test_a_call_that_is_under_way_is_finished(notes_database: TestDatabase, tmp_path: Path) -> None:
    settings = {
        "DATABASE_URL": notes_database.url,
        "DATABASE_LOCK_TIMEOUT_S": "10",
        "DATABASE_STATEMENT_TIMEOUT_S": "10",
    }
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, **settings) as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.connect() as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM notes FOR UPDATE")
            update = asyncio.ensure_future(notes.UpdateNote(an_update(note.id)))
            await notes_database.until_waiting()
            replica.process.terminate()
            await until(lambda: asyncio.to_thread(is_closed, replica.address))

        answer = await update
        exit_code = await replica.exit_code(within_s=MARGIN_S)

    assert answer.text == "Buy coffee"
    assert exit_code == 0


async def test_a_call_that_takes_too_long_does_not_keep_a_replica(notes_database: TestDatabase, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": notes_database.url, "DATABASE_LOCK_TIMEOUT_S": "2", "STOP_GRACE_S": "0.2"}
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, **settings) as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.connect() as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM notes FOR UPDATE")
            update = asyncio.ensure_future(notes.UpdateNote(an_update(note.id)))
            await notes_database.until_waiting()
            replica.process.terminate()
            with pytest.raises(aio.AioRpcError) as failure:
                await update
            exit_code = await replica.exit_code(within_s=2 + MARGIN_S)

    assert failure.value.code() in {StatusCode.UNAVAILABLE, StatusCode.CANCELLED}
    assert exit_code == 0


async def test_a_second_signal_changes_nothing(notes_database: TestDatabase, tmp_path: Path) -> None:
    async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, DRAIN_S="1") as replica:
        replica.process.terminate()
        await replica.until_health(NOT_SERVING)
        replica.process.send_signal(signal.SIGINT)

        assert await replica.exit_code(within_s=1 + MARGIN_S) == 0


async def test_a_replica_without_a_database_serves_and_says_why_it_cannot(tmp_path: Path) -> None:
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=NO_DATABASE) as replica,
        plain_channel(replica.address) as channel,
    ):
        refusal = await refusal_of(NoteServiceStub(channel).GetNote(pb.GetNoteRequest(id=new_uuid())))
        replica.process.terminate()
        exit_code = await replica.exit_code(within_s=MARGIN_S)

    assert (refusal.code, refusal.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert exit_code == 0


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]

        ended = run(NOTES_PACKAGE, "serve", DATABASE_URL=NO_DATABASE, PORT=str(port))

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", f"{LOOPBACK}:{port} is taken. Set PORT to a free one.\n")


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_missing_setting_is_one_clear_line(command: str) -> None:
    ended = run(NOTES_PACKAGE, command)

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", "DATABASE_URL: Field required\n")


def test_an_invalid_setting_is_named_without_its_value() -> None:
    ended = run(NOTES_PACKAGE, "serve", DATABASE_URL="canary://secret", PORT="0")

    assert ended.returncode == 1
    assert "canary" not in ended.stderr
    assert "secret" not in ended.stderr
    assert [line.partition(": ")[0] for line in ended.stderr.splitlines()] == ["PORT", "DATABASE_URL"]


def test_a_migration_without_a_database_is_one_clear_line() -> None:
    ended = run(NOTES_PACKAGE, "migrate", DATABASE_URL=NO_DATABASE)

    assert ended.returncode == 1
    assert ended.stderr.startswith("The database does not answer: ")
    assert "wrong" not in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("package", [*(service.name for service in services()), NOTES_PACKAGE])
def test_a_migration_can_be_run_again(empty_database: TestDatabase, package: str) -> None:
    first = run(package, "migrate", DATABASE_URL=empty_database.url)
    tables = tables_of(empty_database)

    second = run(package, "migrate", DATABASE_URL=empty_database.url)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert {"outbox", "idempotency_keys", "alembic_version"} < tables
    assert tables_of(empty_database) == tables


async def test_migrations_at_the_same_time_wait_for_one_another(empty_database: TestDatabase) -> None:
    def migrate() -> int:
        return run(NOTES_PACKAGE, "migrate", DATABASE_URL=empty_database.url).returncode

    exit_codes = await asyncio.gather(*(asyncio.to_thread(migrate) for _ in range(3)))

    assert exit_codes == [0, 0, 0]
    assert empty_database.query("SELECT count(*) FROM alembic_version") == [(1,)]


def tables_of(database: TestDatabase) -> set[str]:
    return {table for (table,) in database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def is_closed(address: str) -> bool:
    """Return whether connections to the address are refused."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
