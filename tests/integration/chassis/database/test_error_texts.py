"""The text of a server's error, which ends up in logs and tracebacks, holds no values of rows."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from psycopg.errors import UndefinedTable
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from chassis.database import Database, migrations
from chassis.database.connections import Connector
from chassis.database.statement_pool import StatementPool
from tests.integration.chassis.idempotency.test_base_tables import declare
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.integration.databases import TestDatabase

# An email, and a number that does not fit into its column.
VALUES: Final = ("ada@example.com", "7777")
FAILING: Final = """
from alembic import op
revision, down_revision = "0001", None
def upgrade(): op.execute({!r})
"""
TABLE: Final = """
    CREATE TABLE people (
        email text NOT NULL,
        age int NOT NULL,
        CONSTRAINT people_email_key UNIQUE (email),
        CONSTRAINT people_age_check CHECK (age > 0)
    );
    CREATE TABLE letters (
        email text NOT NULL,
        CONSTRAINT letters_email_fkey FOREIGN KEY (email) REFERENCES people (email)
    );
    INSERT INTO people (email, age) VALUES (concat('ada', '@example.com'), 36);
"""
# The email by an expression, because the statement itself is shown.
EMAIL: Final = "concat('ada', '@example.com')"
BREACHES: Final = {
    "unique": f"INSERT INTO people (email, age) VALUES ({EMAIL}, 1)",
    "check": "UPDATE people SET age = 0",
    "not null": "UPDATE people SET age = NULL",
    "foreign key": "INSERT INTO letters (email) SELECT concat('x', email) FROM people",
    "number": "SELECT CAST(email AS int) FROM people",
    "id": "SELECT CAST(email AS uuid) FROM people",
    "time": "SELECT CAST(email AS timestamptz) FROM people",
    "range": "SELECT CAST(repeat('7', 40) AS int) FROM people",
    "function": "DO $$ BEGIN PERFORM CAST(email AS int) FROM people; END $$",
}


@pytest.fixture
async def database(empty_database: TestDatabase) -> AsyncIterator[Database]:
    empty_database.query(TABLE)
    database = Database(database_settings(empty_database.url), name="test")
    yield database
    await database.close()


def in_transaction(database: Database, statement: str) -> Awaitable[object]:
    return database.transaction(lambda connection: connection.execute(text(statement)))


@pytest.mark.parametrize(
    "run", [in_transaction, Database.fetch_on_shared_pool, Database.fetch, Database.fetch_for_write]
)
@pytest.mark.parametrize("breach", BREACHES)
async def test_an_error_of_a_service_shows_no_value(
    breach: str, run: Callable[[Database, str], Awaitable[object]], database: Database
) -> None:
    with pytest.raises((psycopg.Error, DBAPIError)) as failed:
        await run(database, BREACHES[breach])

    assert_shows_no_value(failed.value)


async def test_a_statement_into_which_the_driver_puts_the_values_is_not_shown(empty_database: TestDatabase) -> None:
    connector = Connector(database_settings(empty_database.url), name="test")
    connector.found_pooler()
    statements = StatementPool(connector, number=1, max_waiting=1)
    try:
        with pytest.raises(UndefinedTable) as failed:
            await statements.fetch("SELECT %s FROM nowhere", VALUES[0])
    finally:
        statements.close()

    assert_shows_no_value(failed.value)


@pytest.mark.parametrize("breach", BREACHES)
def test_an_error_of_a_migration_shows_no_value(
    breach: str, empty_database: TestDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty_database.query(TABLE)
    monkeypatch.syspath_prepend(tmp_path)
    package = f"failing_{'_'.join(breach.split())}"
    declare(tmp_path / package, FAILING.format(BREACHES[breach]))

    with pytest.raises(DBAPIError) as failed:
        migrations.upgrade(package, database_settings(empty_database.url))

    assert_shows_no_value(failed.value)


def assert_shows_no_value(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error))
    assert [value for value in VALUES if value in shown] == []
    assert "psycopg.errors." in shown  # the kind of error is what finds the defect
