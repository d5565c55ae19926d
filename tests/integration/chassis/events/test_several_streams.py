"""A worker that applies the events of several resources: one process, a consumer of each stream."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from redis import Redis

from chassis.events.cloudevents import CloudEvent
from chassis.events.redis_streams import FIELD, stream_of
from chassis.testing import until
from tests.integration.conftest import TestDatabase
from tests.integration.replica import REPOSITORY, environment
from tests.support.base_tables import create_base_tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devstack.postgres import PostgresServer

# A service as its worker.py has it, without the service around it. Its effect of a cup waits for a lock on `cups`.
_READER: Final = """
from sqlalchemy import text
from chassis.events.commands import EventCommands
from chassis.runtime import cli

def effect(name):
    def handle(connection, events):
        for event in events:
            if event.type.endswith(".poison"):
                raise RuntimeError("canary")
            values = {"reader": name, "subject": str(event.subject), "type": event.type}
            connection.execute(text(f"INSERT INTO {name}s VALUES (:reader, :subject, :type)"), values)
    return handle

COMMANDS = EventCommands(name="reader", reads={"tea": effect("tea"), "cup": effect("cup")}).commands

if __name__ == "__main__":
    cli.main("reader", {"worker": "reader", "events": "reader"})
"""


@pytest.fixture(scope="module")
def reader_copy(postgres: PostgresServer) -> Iterator[TestDatabase]:
    postgres.create_database("reader")
    database = TestDatabase(postgres.superuser_url("reader"))
    create_base_tables(database.query)
    for table in ("teas", "cups"):
        database.query(f"CREATE TABLE {table} (reader text, subject text, type text)")
    yield database
    database.close()
    postgres.drop_database("reader")


class Reader:
    """The reader's commands as processes."""

    def __init__(self, folder: Path, database: TestDatabase, redis_url: str) -> None:
        self._folder = folder
        self._env = environment(
            DATABASE_URL=database.url,
            REDIS_URL=redis_url,
            PYTHONPATH=f"{folder}:{REPOSITORY}:{REPOSITORY / 'generated'}",
            CONSUMER_RETRY_FIRST_S="0.02",
            CONSUMER_ATTEMPTS="2",
        )
        self.write(_READER)

    def write(self, source: str) -> None:
        """Replace its module."""
        (self._folder / "reader.py").write_text(source)

    def command(self, *words: str) -> str:
        """Return what a command prints, which must succeed."""
        command = [sys.executable, "-m", "reader", *words]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, check=True, timeout=60).stdout

    @contextlib.contextmanager
    def working(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker while the block runs."""
        with (self._folder / "worker.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "reader", "worker"], env=self._env, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait()


@pytest.fixture
def database(reader_copy: TestDatabase) -> Iterator[TestDatabase]:
    """The reader's database, empty."""
    yield reader_copy
    reader_copy.empty()


@pytest.fixture
def reader(tmp_path: Path, database: TestDatabase, redis_url: str) -> Reader:
    return Reader(tmp_path, database, redis_url)


@pytest.fixture
def publish(redis_url: str) -> Iterator[Any]:
    """A function that publishes an event of a resource with this key."""
    with Redis.from_url(redis_url) as broker:

        def send(resource: str, subject: str, *, kind: str = "made", sequence: int = 1) -> None:
            event = CloudEvent(
                id=uuid.uuid4(),
                source=f"/{resource}_svc",
                type=f"{resource}.{kind}",
                subject=subject,
                sequence=sequence,
                time=datetime.now(UTC),
                traceparent="",
                data={},
            )
            broker.xadd(stream_of(resource), {FIELD: event.to_json()})

        yield send


async def until_applied(database: TestDatabase, table: str, *subjects: str) -> None:
    async def is_applied() -> bool:
        return database.query(f"SELECT DISTINCT subject FROM {table} ORDER BY 1") == [(each,) for each in subjects]

    await until(is_applied, timeout_s=30)


async def test_each_event_has_the_effect_of_its_own_stream(
    reader: Reader, database: TestDatabase, publish: Any
) -> None:
    """The streams have the same subject and the same sequence: each stream is counted by itself."""
    with reader.working():
        for resource in ("tea", "cup"):
            publish(resource, "first")

        for table in ("teas", "cups"):
            await until_applied(database, table, "first")

    assert database.query("SELECT * FROM teas") == [("tea", "first", "tea.made")]
    assert database.query("SELECT * FROM cups") == [("cup", "first", "cup.made")]


async def test_a_stream_that_has_to_wait_does_not_stop_the_others(
    reader: Reader, database: TestDatabase, publish: Any
) -> None:
    with database.connect() as other, reader.working():
        with other.transaction():
            other.execute("LOCK TABLE cups")
            publish("cup", "waits")
            await database.until_waiting()
            publish("tea", "first")
            await until_applied(database, "teas", "first")
        await until_applied(database, "cups", "waits")


async def test_dead_letters_of_every_stream_are_listed_and_tried_again_on_their_own(
    reader: Reader, database: TestDatabase, publish: Any
) -> None:
    with reader.working():
        for resource in ("tea", "cup"):
            publish(resource, "bad", kind="poison")

        async def are_dead() -> bool:
            return database.query("SELECT count(*) FROM dead_letters") == [(2,)]

        await until(are_dead, timeout_s=30)

    listed = reader.command("events", "dlq", "list")
    assert sorted(line.split()[1] for line in listed.splitlines()) == ["cup.poison", "tea.poison"]
    assert "2 events are tried again" in reader.command("events", "dlq", "requeue")
    # A version without the defect lets them take effect.
    reader.write(_READER.replace('".poison"', '".never"'))
    with reader.working():
        for table in ("teas", "cups"):
            await until_applied(database, table, "bad")
    assert database.query("SELECT count(*) FROM dead_letters") == [(0,)]
