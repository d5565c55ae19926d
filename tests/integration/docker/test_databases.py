"""docker/postgres/databases.sh, which runs at each start of the composed system."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from chassis.testing import LOOPBACK
from devstack.postgres_cluster import SUPERUSER, find_binaries
from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from devstack.postgres import PostgresServer

SCRIPT = REPOSITORY / "docker" / "postgres" / "databases.sh"


def make(server: PostgresServer, secrets: Path, *pairs: str) -> None:
    for name, password in {
        "postgres": server.passwords.password_of(SUPERUSER),
        **{pair.partition("=")[0]: f"pass'word of {pair}" for pair in pairs},
    }.items():
        (secrets / f"{name}_password").write_text(password)
    path = f"{find_binaries()}:{os.environ['PATH']}"
    env = {"PATH": path, "PGHOST": LOOPBACK, "PGPORT": str(server.port), "SECRETS_DIR": str(secrets)}
    done = subprocess.run(["bash", SCRIPT, *pairs], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def query(server: PostgresServer, statement: str, *, role: str, database: str) -> list[tuple[object, ...]]:
    password = f"pass'word of {role}={database}"
    with psycopg.connect(
        host=LOOPBACK, port=server.port, user=role, password=password, dbname=database, autocommit=True
    ) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_service_that_is_added_gets_its_database_and_the_others_keep_theirs(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    make(postgres, tmp_path, "made_svc=made")
    query(postgres, "CREATE TABLE kept (id int)", role="made_svc", database="made")

    make(postgres, tmp_path, "made_svc=made", "added_svc=added")

    assert query(postgres, "SELECT count(*) FROM kept", role="made_svc", database="made") == [(0,)]
    assert query(postgres, "SELECT current_user::text", role="added_svc", database="added") == [("added_svc",)]
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(
            host=LOOPBACK, port=postgres.port, user="added_svc", password="pass'word of added_svc=added", dbname="made"
        )
