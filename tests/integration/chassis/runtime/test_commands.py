"""The commands of every service, what they say if they cannot run, and their help."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.service import services
from chassis.testing import LOOPBACK
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import run

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase

NO_DATABASE = f"postgresql://nobody:wrong@{LOOPBACK}:1/none"


@pytest.mark.parametrize("package", [*(service.name for service in services() if service.reads), NOTES_PACKAGE])
@pytest.mark.parametrize("command", ["worker", "events dlq requeue"])
def test_a_command_that_needs_redis_says_so(package: str, command: str) -> None:
    ended = run(package, command, DATABASE_URL=NO_DATABASE)

    assert (ended.returncode, ended.stderr) == (1, "REDIS_URL: Field required\n")


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


@pytest.mark.parametrize("command", ["relay", "consume"])
def test_a_command_of_earlier_versions_names_the_one_that_replaced_it(command: str) -> None:
    ended = run(NOTES_PACKAGE, command)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"`{command}` is part of `worker`: run `python -m tests.support.notes_svc worker`.\n"


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


@pytest.mark.parametrize(
    "command",
    ["", "rotate", "events", "events dlq", "events dlq list more", "events replay"],
)
def test_an_unknown_command_shows_the_usage(command: str) -> None:
    ended = run(NOTES_PACKAGE, command)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: python -m tests.support.notes_svc")
