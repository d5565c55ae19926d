"""The SQL of the documents names tables and columns that exist: PostgreSQL itself reads each statement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg

from chassis.testing import new_uuid
from tests.support.documents import code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.databases import TestDatabase


def statements() -> Iterator[tuple[str, str]]:
    """Yield each statement that reads or writes rows, with where it stands."""
    for each in code():
        text = re.sub(r"--.*", "", each.text).replace("'…'", f"'{new_uuid()}'")
        if each.language == "sql" or re.match(r"(SELECT|UPDATE|DELETE FROM|INSERT INTO)\s+\S+\s", text):
            yield from ((each.where, part.strip()) for part in text.split(";") if part.strip())


def test_every_statement_is_one_that_a_database_of_ours_takes(
    users_database: TestDatabase, orders_database: TestDatabase
) -> None:
    refused = []
    tried = 0
    for where, statement in statements():
        if not re.match(
            "SELECT|UPDATE|DELETE|INSERT", statement
        ):  # statements that create roles run in test_migration_role
            continue
        tried += 1
        reasons = [
            reason for database in (users_database, orders_database) if (reason := _refusal(database, statement))
        ]
        if len(reasons) == 2:
            refused.append((where, statement, reasons))

    assert tried > 8
    assert refused == []


def _refusal(database: TestDatabase, statement: str) -> str:
    """Return why PostgreSQL does not take the statement; nothing if it does. Nothing is run."""
    with database.connect() as connection:
        try:
            connection.execute(f"PREPARE documented AS {statement}".encode())
        except psycopg.Error as error:
            return str(error).partition("\n")[0]
    return ""
