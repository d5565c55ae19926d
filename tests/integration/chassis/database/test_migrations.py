"""The indexes that the migrations leave, and the locks that they take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event

from chassis.database import migrations
from chassis.service import services
from tests.integration.inprocess import database_settings
from tests.support.guards import facts, file_of

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase

SERVICES = [service.name for service in services()]

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
        columns, condition = re.fullmatch(r".* USING btree \((.*?)\)( WHERE .*)?", definition).groups()  # type: ignore[union-attr]  # it matches
        found.setdefault(table, set()).add(columns + (condition or ""))

    for table in (OF_EVERY_SERVICE.keys() & tables) | own.keys():
        assert {*OF_EVERY_SERVICE.get(table, ()), *own.get(table, ())} <= found.get(table, set()), table
    assert database.query("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid OR NOT indisready") == []


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
def test_no_writer_waits_for_an_index_on_a_table_that_is_in_use(service: str, empty_database: TestDatabase) -> None:
    revisions = "\n".join(statements_of(service, empty_database)).split("UPDATE alembic_version")

    assert any("CREATE TABLE" in statements for statements in revisions)
    for statements in revisions:
        new = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", statements))
        for how, table in re.findall(r"CREATE (?:UNIQUE )?INDEX( CONCURRENTLY)?.*? ON (\w+)", statements, re.DOTALL):
            assert how or table in new, f"an index on {table} is made while its writers wait"
        for statement in re.findall(r"DROP INDEX.*", statements):
            assert "CONCURRENTLY" in statement


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_set_a_lock_timeout_before_their_first_table(service: str, empty_database: TestDatabase) -> None:
    statements = statements_of(service, empty_database)

    limits = [statement for statement in statements if "lock_timeout" in statement]
    assert limits
    assert statements.index(limits[0]) < next(n for n, each in enumerate(statements) if "CREATE TABLE" in each)
