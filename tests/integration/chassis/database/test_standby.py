"""A commit that no standby has is not acknowledged, though PostgreSQL itself acknowledges it with a warning."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from chassis.database import Database
from chassis.errors import OutcomeUnknown
from chassis.testing import until
from devstack.postgres import PostgresServer
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

WRITE = "INSERT INTO scratch VALUES (1)"


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A primary whose synchronous standby is away."""
    with PostgresServer(tmp_path_factory.mktemp("lonely")) as server:
        with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE scratch (number int)")
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
async def database(lonely: PostgresServer) -> AsyncIterator[Database]:
    database = Database(database_settings(lonely.superuser_url(), statement_timeout_s=30), name="test")
    yield database
    await database.close()


async def cancel_the_wait(server: PostgresServer) -> None:
    """Do what an operator does to writes that hang."""

    def cancel() -> bool:
        with psycopg.connect(server.superuser_url(), autocommit=True) as connection:
            query = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            return connection.execute(query).fetchall() == [(True,)]

    await until(lambda: asyncio.to_thread(cancel))


@pytest.mark.parametrize("way", ["a batch's statement", "a transaction"])
async def test_a_commit_whose_wait_for_the_standby_is_cancelled_has_an_unknown_outcome(
    lonely: PostgresServer, database: Database, way: str
) -> None:
    if way == "a transaction":
        writing = asyncio.ensure_future(database.transaction(lambda connection: connection.execute(text(WRITE))))
    else:
        writing = asyncio.ensure_future(database.fetch_for_write(WRITE))

    await cancel_the_wait(lonely)

    async with asyncio.timeout(10):
        with pytest.raises(OutcomeUnknown):
            await writing
    assert await database.fetch("SELECT 1") == [(1,)]


async def test_a_write_that_waits_for_a_standby_in_vain_has_an_unknown_outcome(lonely: PostgresServer) -> None:
    database = Database(database_settings(lonely.superuser_url(), statement_timeout_s=0.5), name="test")

    async with asyncio.timeout(10):
        with pytest.raises(OutcomeUnknown):
            await database.fetch_for_write(WRITE)
        with pytest.raises(OutcomeUnknown):
            await database.transaction(lambda connection: connection.execute(text(WRITE)))

    await database.close()
