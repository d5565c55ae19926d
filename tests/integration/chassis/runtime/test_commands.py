"""The commands of every service, what they say if they cannot run, and their help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from chassis.service import services
from chassis.testing import LOOPBACK
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase

NO_DATABASE = f"postgresql://nobody:wrong@{LOOPBACK}:1/none"


@pytest.mark.parametrize("package", [*(service.name for service in services() if service.reads), NOTES_PACKAGE])
@pytest.mark.parametrize("command", ["worker", "events dlq requeue"])
def test_a_command_that_needs_redis_says_so(package: str, command: str) -> None:
    ended = run(package, command, DATABASE_URL=NO_DATABASE)

    assert (ended.returncode, ended.stderr) == (1, "REDIS_URL: must be set\n")


def test_a_command_without_redis_is_one_clear_line(notes_database: TestDatabase) -> None:
    notes_database.query(
        "INSERT INTO dead_letters (stream, key, sequence, event, reason, attempts, died_at)"
        " VALUES ('shop:events:author', gen_random_uuid(), 1, '{}', 'GAP', 1, now())"
    )

    redis = f"redis://:canary@{LOOPBACK}:1/0"
    ended = run(NOTES_PACKAGE, "events dlq requeue", DATABASE_URL=notes_database.url, REDIS_URL=redis)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Redis does not answer: ")
    assert ended.stderr.count("\n") == 1
    assert "canary" not in ended.stderr


def test_a_worker_without_tables_names_the_command_to_run(empty_database: TestDatabase, redis_url: str) -> None:
    ended = run(NOTES_PACKAGE, "worker", DATABASE_URL=empty_database.url, REDIS_URL=redis_url)

    assert ended.returncode == 1
    assert ended.stderr == "The database is not ready: run `python -m tests.support.notes_svc migrate` first.\n"


REFUSALS: Final = {
    "no right": ("", "permission denied for schema public. Use the URL of a role that may, as the tables' owner."),
    "no writes": (
        "ALTER ROLE {role} SET default_transaction_read_only = on",
        "cannot execute CREATE TABLE in a read-only transaction. Use the URL of the server that takes writes.",
    ),
    "something else": (
        "GRANT CREATE ON SCHEMA public TO {role}; CREATE TABLE outbox (a int)",
        'relation "outbox" already exists. Give the service a database of its own.',
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_database_that_refuses_a_migration_is_one_clear_line(
    case: str, empty_database: TestDatabase, role_url: str
) -> None:
    statement, said = REFUSALS[case]
    if statement:
        empty_database.query(statement.format(role=ROLE))

    ended = run(NOTES_PACKAGE, "migrate", DATABASE_URL=role_url)

    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"The database refuses: {said}\n")


@pytest.mark.parametrize("command", ["migrate", "events replay --since 2026-11-25", "events dlq list"])
@pytest.mark.parametrize("host", [LOOPBACK, "localhost"])
def test_a_wrong_password_is_told_from_a_database_that_is_away(command: str, host: str, role_url: str) -> None:
    url = re.sub("://.*?@[^:]+", f"://{ROLE}:canary@{host}", role_url)

    ended = run(NOTES_PACKAGE, command, DATABASE_URL=url)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("The database does not answer: ")
    assert f'password authentication failed for user "{ROLE}"' in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "canary" not in ended.stderr


ROLE: Final = "newcomer"


@pytest.fixture
def role_url(empty_database: TestDatabase, postgres: PostgresServer) -> Iterator[str]:
    """The empty database, for a role without rights."""
    empty_database.query(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'newcomer'")
    yield re.sub("://[^@]*@", f"://{ROLE}:newcomer@", empty_database.url)
    empty_database.query(f"DROP OWNED BY {ROLE}")
    empty_database.query(f"DROP ROLE {ROLE}")


def test_a_replay_needs_a_time(notes_database: TestDatabase) -> None:
    wrong = run(NOTES_PACKAGE, "events replay --since yesterday", DATABASE_URL=notes_database.url)
    right = run(NOTES_PACKAGE, "events replay --since 2026-11-25T18:00:00Z", DATABASE_URL=notes_database.url)

    assert (wrong.returncode, wrong.stderr) == (1, "--since must look like 2026-11-25T18:00:00Z.\n")
    assert (right.returncode, right.stdout, right.stderr) == (0, "0 events are published again\n", "")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("--help", ["serve", "Serve calls until SIGTERM or SIGINT.", "migrate", "worker", "events"]),
        ("events --help", ["dlq", "replay", "Publish this service's events since a time once more"]),
        ("events dlq --help", ["list", "requeue", "Try the events that could not take effect once more"]),
        ("events replay --help", ["--since"]),
    ],
)
def test_the_help_describes_every_command(command: str, told: list[str]) -> None:
    ended = run(NOTES_PACKAGE, command)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [each for each in told if each not in " ".join(ended.stdout.split())] == []


@pytest.mark.parametrize("package", [*(service.name for service in services()), NOTES_PACKAGE])
@pytest.mark.parametrize("command", ["relay", "consume", "consume --help"])
def test_a_command_of_an_earlier_release_names_the_one_that_replaces_it(command: str, package: str) -> None:
    word = command.partition(" ")[0]

    ended = run(package, command)

    said = f"`{word}` is replaced: run `python -m {package} worker`, which publishes and consumes.\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", said)


@pytest.mark.parametrize(
    "command",
    ["", "rotate", "events", "events dlq", "events dlq list more", "events replay"],
)
def test_an_unknown_command_shows_the_usage(command: str) -> None:
    ended = run(NOTES_PACKAGE, command)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: python -m tests.support.notes_svc")
