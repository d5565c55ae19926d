"""A new service's first migration makes the same tables that the others have come to over the years."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from chassis.database import migrations
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase

_ENV = "from chassis.database.migrations import run_in_env\n\nrun_in_env()\n"
_FIRST = """
from alembic import op
from chassis.idempotency.base_tables import base_tables
revision, down_revision = "0001", None
def upgrade(): base_tables(op)
"""
_NEXT = (
    _FIRST.replace('"0001", None', '"0002", "0001"').replace("base_tables(op)\n", "again(op)\n")
    + """
def again(op):
    from chassis.events import inbox, outbox, relay_state, replay
    for statement in (*outbox.DDL_V2, *outbox.DDL_V3, *relay_state.DDL_V2, *inbox.DDL_V2):
        op.execute(statement)
"""
)
_SHARED = ("outbox", "inbox", "inbox_state", "dead_letters", "relay_state", "idempotency_keys")
_SCHEMA = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY(%s) ORDER BY 1, 2
    """,
    "indexes": """
        SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = ANY(%s) ORDER BY 1, 2
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE conrelid::regclass::text = ANY(%s) ORDER BY 1, 2
    """,
}


def schema_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(url) as connection:
        return {what: connection.execute(query, [list(_SHARED)]).fetchall() for what, query in _SCHEMA.items()}


def declare(folder: Path, *versions: str) -> None:
    (folder / "migrations" / "versions").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "migrations" / "env.py").write_text(_ENV)
    for number, text in enumerate(versions, start=1):
        (folder / "migrations" / "versions" / f"{number:04}.py").write_text(text)


def test_a_new_service_begins_with_the_tables_that_the_others_have(
    postgres: PostgresServer,
    shared_databases: dict[str, TestDatabase],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    declare(tmp_path / "newborn", _FIRST, _NEXT)
    postgres.create_private_database("newborn", role="newborn")
    url = postgres.url("newborn", role="newborn")

    migrations.upgrade("newborn", database_settings(url))

    made = schema_of(url)
    assert {table for table, *_ in made["columns"]} == set(_SHARED)
    for database in shared_databases.values():
        others = schema_of(database.url)
        assert (made["columns"], made["constraints"]) == (others["columns"], others["constraints"])
        assert set(made["indexes"]) <= set(others["indexes"])  # a service with streams has one more
