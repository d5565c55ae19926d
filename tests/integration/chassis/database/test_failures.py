"""The database is slow, locked, restarted, gone or broken: calls end soon, with a reason, and recover by themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from sqlalchemy import text
from structlog.testing import capture_logs

from chassis.database import Database
from chassis.errors import DatabaseUnavailable
from chassis.testing import new_uuid, plain_channel, refusal_of, server_settings
from devstack.postgres import PostgresServer
from tests.integration.chassis.notes import notes_service
from tests.integration.conftest import prepare
from tests.integration.databases import fresh_database
from tests.integration.inprocess import NOTES, database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sqlalchemy import Connection

    from chassis.testing import Refusal
    from tests.integration.databases import TestDatabase

# connect_timeout_s is 2, and who finds the connections of the pool dead tries to open one; no attempt comes after that.
SOON_S = 5


@pytest.fixture(scope="module")
def mortal_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of this module's own, to be killed."""
    home = tmp_path_factory.mktemp("mortal")
    with PostgresServer(home) as server:
        prepare(server)
        yield server
    shutil.rmtree(home)


@pytest.fixture
async def mortal_notes(mortal_postgres: PostgresServer) -> AsyncIterator[NoteServiceStub]:
    """A notes service on a server that the test kills."""
    with fresh_database(mortal_postgres, NOTES) as database:
        async with (
            notes_service(database_settings(database.url)) as address,
            plain_channel(address) as channel,
        ):
            yield NoteServiceStub(channel)


async def test_calls_succeed_after_a_restart_of_the_database(
    mortal_notes: NoteServiceStub, mortal_postgres: PostgresServer
) -> None:
    note = await mortal_notes.CreateNote(create_note_request())
    get = pb.GetNoteRequest(id=note.id)
    await asyncio.gather(*(mortal_notes.GetNote(get) for _ in range(16)))

    await asyncio.to_thread(mortal_postgres.restart)

    answers = await asyncio.gather(
        *(mortal_notes.GetNote(get) for _ in range(16)),
        *(mortal_notes.CreateNote(create_note_request()) for _ in range(16)),
    )
    assert answers[:16] == [note] * 16


async def test_without_a_database_calls_are_refused_soon_and_recover_with_it(
    mortal_notes: NoteServiceStub, mortal_postgres: PostgresServer
) -> None:
    note = await mortal_notes.CreateNote(create_note_request())
    get = pb.GetNoteRequest(id=note.id)
    update = an_update(note.id, request_id=new_uuid())

    await asyncio.to_thread(mortal_postgres.kill)
    try:
        began = time.monotonic()
        refusals = await asyncio.gather(
            *(refusal_of(mortal_notes.GetNote(get)) for _ in range(16)),
            *(refusal_of(mortal_notes.UpdateNote(update)) for _ in range(16)),
        )
        took_s = time.monotonic() - began
    finally:
        await asyncio.to_thread(mortal_postgres.start)

    assert took_s < SOON_S
    for refusal in refusals:
        require_database_unavailable(refusal)
    assert await mortal_notes.GetNote(get) == note
    assert (await mortal_notes.UpdateNote(update)).etag == "v2"


async def test_a_wait_for_a_locked_row_is_bounded(notes: NoteServiceStub, notes_database: TestDatabase) -> None:
    note = await notes.CreateNote(create_note_request())
    with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"):
        began = time.monotonic()
        refusal = await refusal_of(notes.UpdateNote(an_update(note.id)))
        took_s = time.monotonic() - began

        assert await notes.GetNote(pb.GetNoteRequest(id=note.id)) == note
    require_database_unavailable(refusal)
    assert 0.5 <= took_s < SOON_S
    assert (await notes.UpdateNote(an_update(note.id))).text == "Buy coffee"


async def test_a_statement_is_waited_for_only_so_long(notes_database: TestDatabase) -> None:
    database = Database(database_settings(notes_database.url, statement_timeout_s=0.1), name="test")

    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda connection: connection.execute(text("SELECT pg_sleep(10)")))

    await database.ping()
    await database.close()


async def test_a_connection_over_a_dead_network_is_closed(notes_database: TestDatabase) -> None:
    database = Database(database_settings(notes_database.url, statement_timeout_s=2), name="t")

    def option(connection: Connection) -> int:
        connected = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(connected.pgconn.socket)) as wire:
            return wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert await database.read(option) == 3000
    await database.close()


async def test_a_transaction_that_a_deadlock_ends_is_run_again(notes_database: TestDatabase) -> None:
    database = Database(database_settings(notes_database.url), name="test")
    notes_database.query("CREATE TABLE scratch (id int PRIMARY KEY, touched int NOT NULL)")
    notes_database.query("INSERT INTO scratch VALUES (1, 0), (2, 0)")
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []

    def touching(first: int, second: int) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            attempts.append(first)
            connection.execute(text("UPDATE scratch SET touched = touched + 1 WHERE id = :id"), {"id": first})
            if attempts.count(first) == 1:
                both_hold_one.wait(timeout=5)
            connection.execute(text("UPDATE scratch SET touched = touched + 1 WHERE id = :id"), {"id": second})

        return work

    await asyncio.gather(database.transaction(touching(1, 2)), database.transaction(touching(2, 1)))

    assert len(attempts) >= 3
    assert notes_database.query("SELECT touched FROM scratch") == [(2,), (2,)]
    notes_database.query("DROP TABLE scratch")
    await database.close()


async def test_a_defect_is_a_fixed_sentence_for_the_caller_and_a_cause_in_the_log(
    notes_copy: TestDatabase,
) -> None:
    notes_copy.query("DROP TABLE notes CASCADE")
    settings = database_settings(notes_copy.url)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)

        with capture_logs() as logged:
            refusals = [
                await refusal_of(notes.GetNote(pb.GetNoteRequest(id=new_uuid()))),
                await refusal_of(notes.CreateNote(create_note_request())),
            ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain, refusal.reason) == (StatusCode.INTERNAL, "shop.system.v1", "INTERNAL")
        assert refusal.message == "The service has a defect. Report the request id; trying again may help."
        for leak in ("psycopg", "sqlalchemy", "Undefined", "SELECT", "INSERT", "relation", "TABLE", ".py", "Error"):
            assert leak not in str(refusal.status).replace("ErrorInfo", "")
    defects = [entry for entry in logged if entry["event"] == "rpc.defect"]
    assert len(defects) == 2
    for defect in defects:
        assert 'relation "notes" does not exist' in str(defect["exc_info"])
    assert [entry["code"] for entry in logged if entry["event"] == "rpc.handled"] == ["INTERNAL", "INTERNAL"]


async def test_a_defect_shows_no_parameters_of_its_statement(notes_copy: TestDatabase) -> None:
    notes_copy.query("DROP TABLE notes CASCADE")
    settings = database_settings(notes_copy.url)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        with capture_logs() as logged:
            await refusal_of(NoteServiceStub(channel).CreateNote(create_note_request(text="canary")))

    [cause] = [str(entry["exc_info"]) for entry in logged if entry["event"] == "rpc.defect"]
    assert "INSERT INTO notes" in cause
    assert "canary" not in cause


async def test_a_caller_that_gives_up_can_find_out_with_its_request_id(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url)
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        update = an_update(note.id, request_id=new_uuid())
        with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"), pytest.raises(aio.AioRpcError) as failure:
            await notes.UpdateNote(update, timeout=0.2)

        answer = await notes.UpdateNote(update)

    assert failure.value.code() is StatusCode.DEADLINE_EXCEEDED
    assert (answer.text, answer.etag) == ("Buy coffee", "v2")
    assert notes_database.query("SELECT version FROM notes") == [(2,)]
    assert notes_database.query("SELECT count(*) FROM outbox") == [(2,)]


async def test_a_call_without_a_deadline_gets_the_services(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url)
    server = server_settings(max_call_s=0.2)
    async with notes_service(settings, server=server) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"):
            refusal = await refusal_of(notes.UpdateNote(an_update(note.id)))

    assert (refusal.code, refusal.domain) == (StatusCode.DEADLINE_EXCEEDED, "shop.system.v1")
    assert refusal.reason == "DEADLINE_EXCEEDED"


async def test_a_call_whose_caller_left_before_its_turn_does_nothing(notes_database: TestDatabase) -> None:
    settings = database_settings(notes_database.url, pool_size=4)  # one lane for what is slow
    async with notes_service(settings) as address, plain_channel(address) as channel:
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"):
            waiting = asyncio.ensure_future(notes.UpdateNote(an_update(note.id)))
            await notes_database.until_waiting()

            with pytest.raises(aio.AioRpcError):
                await notes.ArchiveNote(pb.ArchiveNoteRequest(id=note.id), timeout=0.2)
        await waiting

        assert (await notes.GetNote(pb.GetNoteRequest(id=note.id))).text == "Buy coffee"


def require_database_unavailable(refusal: Refusal) -> None:
    assert (refusal.code, refusal.domain) == (StatusCode.UNAVAILABLE, "shop.system.v1")
    assert (refusal.reason, refusal.retry_after_s) == ("DATABASE_UNAVAILABLE", 1)
    assert refusal.retry_after_header == "1"
