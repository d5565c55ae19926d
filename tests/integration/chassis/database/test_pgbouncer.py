"""Through the real PgBouncer, in each mode: after a transaction its session is another connection's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import text

from chassis.database import Database, migrations
from chassis.database.statements import execute
from chassis.database.url import DatabaseUrl
from chassis.errors import DatabaseUnavailable, StartupError
from chassis.testing import plain_channel
from chassis.watch.changefeed import Changefeed
from tests.integration.chassis.notes import notes_service
from tests.integration.inprocess import NOTES_PACKAGE, database_settings
from tests.integration.replica import run
from tests.support.database_cases import cases
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import create_note_request
from tests.support.pgbouncer import MISSING, PgBouncer, find_pgbouncer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import Connection

    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase

TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
ASK = "SELECT " + ", ".join(f"current_setting('{name}')" for name in TIMEOUTS)


MODES: dict[str, dict[str, str]] = {
    "refuses options": {},
    "ignores options": {"ignore_startup_parameters": "options,extra_float_digits"},
    "session mode": {"pool_mode": "session"},
}


@pytest.fixture(scope="module", params=cases(MODES, everyday=("refuses options",)))
def pooler(
    request: pytest.FixtureRequest, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PgBouncer]:
    program = find_pgbouncer()
    if program is None:
        pytest.skip(MISSING)
    # One session each, of three: a fourth caller would get none.
    more = {"default_pool_size": 50} if request.param == "session mode" else {}
    home = tmp_path_factory.mktemp("pooler") / "home"
    with PgBouncer(program, home, postgres, **MODES[request.param], **more) as pooler:
        yield pooler


def behind(pooler: PgBouncer, database: TestDatabase) -> str:
    """Return the database's URL behind the pooler."""
    return pooler.url(database.url.rpartition("/")[2])


@pytest.fixture
async def database(pooler: PgBouncer, notes_database: TestDatabase) -> AsyncIterator[Database]:
    settings = database_settings(behind(pooler, notes_database), statement_timeout_s=0.5, lock_timeout_s=0.2)
    database = Database(settings, name="test")
    yield database
    await database.close()


def ask(connection: Connection) -> Any:
    return tuple(execute(connection, ASK)[0])


async def test_every_statement_has_the_settings_timeouts(database: Database) -> None:
    for _ in range(3):
        read, written = await database.fetch(ASK), await database.fetch_for_write(ASK)
        in_threads = [await database.read(ask), await database.transaction(ask)]

        assert [*read, *written, *in_threads] == [("500ms", "200ms", "10s")] * 4


async def test_timeouts_end_with_their_transaction(
    database: Database, pooler: PgBouncer, notes_database: TestDatabase
) -> None:
    await asyncio.gather(*(database.transaction(ask) for _ in range(8)), *(database.fetch(ASK) for _ in range(8)))
    await Changefeed(database, owner_field="authorId").renumber_after_restore()

    with psycopg.connect(behind(pooler, notes_database), autocommit=True) as another:
        for _ in range(8):
            assert another.execute(ASK.encode()).fetchone() == ("0", "0", "0")


async def test_a_statement_is_waited_for_only_so_long(database: Database) -> None:
    for way in (database.fetch, database.fetch_for_write, database.fetch_on_shared_pool):
        with pytest.raises(DatabaseUnavailable):
            await way("SELECT pg_sleep(10)")
    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda connection: connection.execute(text("SELECT pg_sleep(10)")).all())

    await database.ping()


async def test_parameters_of_every_kind_go_there_and_come_back(database: Database) -> None:
    statement = "SELECT CAST(%s AS int), CAST(%s AS text), CAST(%s AS jsonb), CAST(%s AS uuid[]), CAST(%s AS bool)"
    ids = "{00000000-0000-0000-0000-000000000001,NULL}"

    [row] = await database.fetch(statement, -7, "a'\\é\U0001f600%s;--", '{"a": [1]}', ids, None)

    assert row[:3] == (-7, "a'\\é\U0001f600%s;--", {"a": [1]})
    assert [each and each.int for each in row[3]] == [1, None]
    assert row[4] is None


async def test_a_thousand_calls_at_once_share_three_sessions_and_none_fails(
    pooler: PgBouncer, notes_database: TestDatabase, author: str
) -> None:
    settings = database_settings(behind(pooler, notes_database))
    async with (
        notes_service(settings) as address,
        notes_service(settings) as again,
        plain_channel(address) as channel,
        plain_channel(again) as to_others,
    ):
        notes, others = NoteServiceStub(channel), NoteServiceStub(to_others)
        note = await notes.CreateNote(create_note_request())
        get = pb.GetNoteRequest(id=note.id)

        read = await asyncio.gather(*(stub.GetNote(get) for _ in range(200) for stub in (notes, others)))
        written = await asyncio.gather(*(notes.CreateNote(create_note_request(author)) for _ in range(200)))
        archived = await asyncio.gather(*(others.ArchiveNote(pb.ArchiveNoteRequest(id=each.id)) for each in written))
        listed = await notes.ListNotes(pb.ListNotesRequest(author_id=author, page_size=200))

    assert read == [note] * 400
    assert {each.id for each in written} == {each.id for each in archived} == {each.id for each in listed.notes}
    assert notes_database.query("SELECT count(*) FROM notes WHERE state = 'ARCHIVED'") == [(200,)]


def test_migrations_refuse_a_pooler_and_take_the_direct_url(pooler: PgBouncer, notes_database: TestDatabase) -> None:
    url = behind(pooler, notes_database)

    with pytest.raises(StartupError, match="set DATABASE_DIRECT_URL"):
        migrations.upgrade(NOTES_PACKAGE, database_settings(url))
    migrations.upgrade(NOTES_PACKAGE, database_settings(url, direct_url=DatabaseUrl.parse(notes_database.url)))
    refused = run(NOTES_PACKAGE, "migrate", DATABASE_URL=url)

    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "set DATABASE_DIRECT_URL to the URL of PostgreSQL itself" in refused.stderr
