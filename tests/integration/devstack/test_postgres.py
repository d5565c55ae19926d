from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from devstack.errors import StackError
from devstack.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    # pytest's folders have mode 0700: as root, the server runs as a user who may not enter them.
    with PostgresServer(tmp_path_factory.mktemp("server") / "postgres") as server:
        server.create_private_database("users", role="user_svc")
        server.create_private_database("examples", role="example_svc")
        yield server


def _execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_role_owns_its_database(server: PostgresServer) -> None:
    url = server.url("users", role="user_svc")

    _execute(url, "CREATE TABLE people (name text)")

    assert _execute(url, "SELECT count(*) FROM people") == [(0,)]


@pytest.mark.parametrize(
    ("role", "database"),
    [
        ("user_svc", "examples"),
        ("example_svc", "users"),
        ("user_svc", "postgres"),
        ("user_svc", "template1"),
    ],
)
def test_a_role_cannot_enter_another_roles_database(server: PostgresServer, role: str, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        _execute(server.url(database, role=role), "SELECT 1")


def test_a_role_with_a_wrong_password_stays_out(server: PostgresServer) -> None:
    password = server.passwords.password_of("user_svc")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        _execute(server.url("users", role="user_svc").replace(password, "guess"), "SELECT 1")


def test_the_displayed_url_has_no_password_and_works(server: PostgresServer) -> None:
    url = server.psql_url("users", role="user_svc")

    assert server.passwords.password_of("user_svc") not in url
    assert _execute(url, "SELECT current_user::text") == [("user_svc",)]


def test_making_a_database_again_keeps_it(server: PostgresServer) -> None:
    _execute(server.url("examples", role="example_svc"), "CREATE TABLE kept (id int)")

    server.create_private_database("examples", role="example_svc")

    assert _execute(server.url("examples", role="example_svc"), "SELECT count(*) FROM kept") == [(0,)]


def test_a_database_is_a_copy_of_its_template(server: PostgresServer) -> None:
    server.create_database("template_of_ours")
    _execute(server.superuser_url("template_of_ours"), "CREATE TABLE copied (id int)")

    server.create_database("copy", template="template_of_ours")

    assert _execute(server.superuser_url("copy"), "SELECT count(*) FROM copied") == [(0,)]
    server.drop_database("copy")
    server.drop_database("template_of_ours")


def test_committed_rows_survive_a_kill(server: PostgresServer) -> None:
    url = server.url("users", role="user_svc")
    _execute(url, "CREATE TABLE survivors AS SELECT 42 AS answer")

    server.kill()
    server.restart()

    assert _execute(url, "SELECT answer FROM survivors") == [(42,)]


def test_a_stale_pid_file_with_the_id_of_another_process_is_ignored(server: PostgresServer) -> None:
    pid_file = next(server.passwords.path.parent.rglob("postmaster.pid"))
    contents = pid_file.read_text()
    server.kill()
    # The next process with the dead server's number is one of ours: PostgreSQL alone would refuse to start.
    pid_file.write_text(contents.replace(contents.split()[0], str(os.getppid()), 1))

    server.restart()

    assert _execute(server.superuser_url(), "SELECT 1") == [(1,)]


def test_a_broken_data_directory_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "postgres"
    with PostgresServer(home) as server:
        (version,) = home.rglob("data/PG_VERSION")
    version.write_text("9\n")

    server = PostgresServer(home)
    with pytest.raises(StackError, match=r"^PostgreSQL ended .* FATAL: .*make clean") as caught:
        server.start()

    assert "\n" not in str(caught.value)
    assert server.process.pid is None
    server.close()


def test_data_without_its_passwords_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "postgres") as server:
        pass
    server.passwords.path.unlink()

    with pytest.raises(StackError, match="make clean"), PostgresServer(tmp_path / "postgres"):
        pytest.fail("started without the superuser's password")


def test_an_initialisation_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    remains = tmp_path / "postgres" / "cluster" / "unfinished" / "base"
    remains.mkdir(parents=True)

    started = time.monotonic()
    with PostgresServer(tmp_path / "postgres") as server:
        assert _execute(server.superuser_url(), "SELECT 1") == [(1,)]

    assert not remains.exists()
    assert time.monotonic() - started < 30
