"""The indexes that the migrations leave, and the locks that they take."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from chassis.database import migrations
from chassis.service import services
from chassis.testing import until
from tests.integration.inprocess import NOTES_PACKAGE, database_settings
from tests.integration.replica import run
from tests.support.guards import facts, file_of
from tests.support.migration_faults import faults_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.integration.databases import TestDatabase

SERVICES = [service.name for service in services()]

INVALID = "SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid OR NOT indisready"

# Each holds up a lookup that would read the whole table without it. Those of a service's own tables are in its
# guards.toml, in [indexes].
OF_EVERY_SERVICE = {
    "alembic_version": (),
    "dead_letters": (),
    "idempotency_keys": ("created_at", "resource_id"),
    "inbox": ("stream, subject",),
    "inbox_state": (),
    "relay_state": (),
    "outbox": ('"position" WHERE (published_at IS NULL)', "subject, sequence"),
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_lookup_has_its_index(service: str, shared_databases: dict[str, TestDatabase]) -> None:
    database, own = shared_databases[service], facts("indexes", service)
    tables = {table for (table,) in database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}

    unknown = tables - OF_EVERY_SERVICE.keys() - own.keys()
    assert unknown == set(), f"name their indexes, if only [], in [indexes] of {file_of(service)}"
    found: dict[str, set[str]] = {}
    for table, definition in database.query("SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'"):
        columns, condition = re.fullmatch(r".* USING btree \((.*?)\)( WHERE .*)?", definition).groups()
        found.setdefault(table, set()).add(columns + (condition or ""))

    for table in (OF_EVERY_SERVICE.keys() & tables) | own.keys():
        assert {*OF_EVERY_SERVICE.get(table, ()), *own.get(table, ())} <= found.get(table, set()), table
    assert database.query(INVALID) == []


def statements_of(service: str, database: TestDatabase) -> list[str]:
    """Return what the service's migrations run, from nothing to the newest version."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        migrations.upgrade(service, database_settings(database.url))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return statements


@pytest.mark.parametrize("service", SERVICES)
def test_no_migration_stops_or_blocks_the_code_that_runs(service: str, empty_database: TestDatabase) -> None:
    found: dict[str, str] = {}
    statements: list[str] = []
    for statement in statements_of(service, empty_database):
        if revision := re.match(r"(?:INSERT INTO|UPDATE) alembic_version .*?'(\w+)'", statement):
            made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", "\n".join(statements)))
            faults = [fault for each in statements for fault in faults_in(each, new=made)]
            found |= {f"{revision[1]} {what}": why for what, _, why in (fault.partition(": ") for fault in faults)}
            statements = []
        else:
            statements.append(statement)

    explained = facts("migrations", service)
    assert {what: why for what, why in found.items() if what not in explained} == {}, (
        f"change it, or say in [migrations] of {file_of(service)} why it does no harm"
    )
    assert explained.keys() - found.keys() == set(), "nothing needs these explanations any more"


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_set_a_lock_timeout_before_their_first_table(service: str, empty_database: TestDatabase) -> None:
    statements = statements_of(service, empty_database)

    limits = [statement for statement in statements if "lock_timeout" in statement]
    assert limits
    assert statements.index(limits[0]) < next(n for n, each in enumerate(statements) if "CREATE TABLE" in each)


@pytest.fixture
def older(empty_database: TestDatabase) -> Iterator[psycopg.Connection[Any]]:
    """A transaction with a snapshot, as pg_dump holds one for as long as it runs."""
    with empty_database.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1 FROM pg_class LIMIT 1")
        yield connection


def has_waited(database: TestDatabase, *, seconds: float) -> bool:
    """Return whether a CREATE INDEX has waited for another transaction for this time."""
    [(count,)] = database.query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND query LIKE '%%CONCURRENTLY%%' AND query_start < now() - %s * interval '1 second'",
        seconds,
    )
    return bool(count)


@pytest.mark.parametrize("service", SERVICES)
async def test_an_index_waits_longer_for_an_older_transaction_than_a_table_for_its_lock(
    service: str, empty_database: TestDatabase, older: psycopg.Connection[Any]
) -> None:
    upgrade = partial(migrations.upgrade, service, database_settings(empty_database.url), lock_timeout_s=0.1)
    migration = asyncio.create_task(asyncio.to_thread(upgrade))

    await until(lambda: asyncio.to_thread(has_waited, empty_database, seconds=0.5))
    older.execute("COMMIT")
    await migration

    assert empty_database.query(INVALID) == []


@pytest.mark.parametrize("service", SERVICES)
def test_an_index_that_waited_too_long_is_made_by_the_next_try(
    service: str, empty_database: TestDatabase, older: psycopg.Connection[Any]
) -> None:
    settings = database_settings(empty_database.url)
    with pytest.raises(OperationalError, match="lock timeout"):
        migrations.upgrade(service, settings, concurrent_timeout_s=0.1)
    older.execute("COMMIT")

    migrations.upgrade(service, settings)

    assert empty_database.query(INVALID) == []


def test_no_table_is_waited_for_as_long_as_an_older_transaction(empty_database: TestDatabase) -> None:
    migrations.upgrade(NOTES_PACKAGE, database_settings(empty_database.url))
    with empty_database.locked("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"):
        ended = run(NOTES_PACKAGE, "migrate", DATABASE_URL=empty_database.url)

    said = "Another transaction holds a lock on what this needs. Run it again when that transaction has ended."
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{said}\n")
