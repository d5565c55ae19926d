"""The two roles of docs/operations.md: one owns the tables and migrates, the other only reads and writes rows."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from devstack.postgres import PostgresServer

OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()


def _statements() -> str:
    _, _, below = OPERATIONS.partition("### A separate role for migrations\n")
    found = re.search(r"^```sql\n(.*?)^```", below, re.MULTILINE | re.DOTALL)
    assert found
    # Names of its own, because the tests share the server.
    renamed = {"user_svc": "two_roles", "users": "two_roles_users"}
    return re.sub(r"\buser_svc(?=\b|_)|\busers\b", lambda name: renamed[name[0]], found[1])


def _url(postgres: PostgresServer, role: str) -> str:
    password = postgres.passwords.password_of(role)
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'".encode())
    return postgres.url("two_roles_users", role=role)


def test_the_service_can_use_the_owners_tables_and_not_alter_them(postgres: PostgresServer) -> None:
    postgres.create_database("two_roles_users")
    with psycopg.connect(postgres.superuser_url("two_roles_users"), autocommit=True) as connection:
        connection.execute(_statements().encode())
    environment = {
        "DATABASE_URL": _url(postgres, "two_roles_owner"),
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/generated",
    }

    migrate = (sys.executable, "-m", "user_svc", "migrate")
    done = subprocess.run(
        migrate, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
    with psycopg.connect(_url(postgres, "two_roles"), autocommit=True) as service:
        tables = service.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert ("users",) in tables
        for (table,) in tables:
            privileges = ("SELECT", "INSERT", "UPDATE", "DELETE")
            granted = [
                service.execute("SELECT has_table_privilege(%s, %s)", (table, each)).fetchone() for each in privileges
            ]
            assert granted == [(True,)] * 4, table
        for forbidden in (b"CREATE TABLE mine (id int)", b"DROP TABLE users", b"ALTER TABLE users ADD COLUMN x int"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(forbidden)
