"""A worker is one process for a relay and a consumer: what keeps one of them waiting does not reach the other."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import psycopg

from chassis.database.locks import RELAY
from chassis.events.cloudevents import CloudEvent
from chassis.events.redis_streams import FIELD, stream_of
from chassis.testing import until
from tests.integration.chassis.events.test_relay import until_published, write
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import REPOSITORY, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from tests.integration.databases import TestDatabase

NOTES: Final = stream_of("note")
AUTHORS: Final = stream_of("author")


class Worker:
    """`python -m tests.support.notes_svc worker`.

    Attributes:
        process: the child.
    """

    def __init__(self, log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            command = [sys.executable, "-m", NOTES_PACKAGE, "worker"]
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment(**env), stdout=output, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        return self._log.read_text()

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines with this event."""
        whole = self.output().rpartition("\n")[0]  # the last line may be half written
        lines = [line for line in whole.splitlines() if line.startswith("{")]
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    async def until_logged(self, event: str) -> None:
        async def is_logged() -> bool:
            assert self.process.poll() is None, self.output()
            return bool(self.log(event))

        await until(is_logged, timeout_s=30)


@contextlib.contextmanager
def worker(folder: Path, database: TestDatabase, redis_url: str, **env: str) -> Iterator[Worker]:
    """Run a worker while the block runs."""
    log = folder / f"worker-{uuid.uuid4()}.log"
    made = Worker(log, {"DATABASE_URL": database.url, "REDIS_URL": redis_url, **env})
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def register(stored: Redis) -> uuid.UUID:
    """Let an author be published."""
    author_id = uuid.uuid4()
    event = CloudEvent(
        id=uuid.uuid4(),
        source="/author_svc",
        type="author.created",
        subject=author_id,
        sequence=1,
        time=datetime.now(UTC),
        traceparent="",
        data={"authorId": str(author_id), "state": "ACTIVE"},
    )
    stored.xadd(AUTHORS, {FIELD: event.to_json().decode()})
    return author_id


async def until_known(database: TestDatabase, author_id: uuid.UUID) -> None:
    """Return once the author's event has taken effect."""

    async def is_known() -> bool:
        return database.query("SELECT 1 FROM known_authors WHERE id = %s", author_id) != []

    await until(is_known, timeout_s=30)


@contextlib.contextmanager
def locked(database: TestDatabase, statement: str) -> Iterator[None]:
    """Hold what the statement locks while the block runs."""
    with psycopg.connect(database.url) as connection:
        connection.execute(statement.encode())
        yield


async def test_a_relay_that_cannot_read_the_outbox_does_not_stop_the_consumer(
    notes_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    write(notes_database, 1)

    with locked(notes_database, "LOCK TABLE outbox"), worker(tmp_path, notes_database, redis_url) as ours:
        await ours.until_logged("relay.waiting")
        await until_known(notes_database, register(stored))

        assert stored.xlen(NOTES) == 0
        assert ours.log("consumer.waiting") == []


async def test_a_consumer_that_cannot_write_does_not_stop_the_relay(
    notes_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    with locked(notes_database, "LOCK TABLE inbox"), worker(tmp_path, notes_database, redis_url) as ours:
        await ours.until_logged("consumer.joined")
        author_id = register(stored)
        await ours.until_logged("consumer.waiting")
        write(notes_database, 1)
        await until_published(notes_database)

        assert stored.xlen(NOTES) == 1
        assert ours.log("relay.waiting") == []

    with worker(tmp_path, notes_database, redis_url):
        await until_known(notes_database, author_id)


async def test_another_name_in_the_logs_changes_neither_the_group_nor_the_source_of_events(
    notes_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    write(notes_database, 1)

    with worker(tmp_path, notes_database, redis_url, SERVICE_NAME="another") as ours:
        await ours.until_logged("consumer.joined")
        await until_published(notes_database)

    [(_, fields)] = stored.xrange(NOTES)
    [group] = stored.xinfo_groups(AUTHORS)
    assert ours.log("consumer.joined")[0]["service"] == "another"
    assert (CloudEvent.from_json(fields[FIELD]).source, group["name"]) == ("/notes_svc", "notes_svc")


async def test_a_worker_whose_relay_is_on_standby_consumes(
    notes_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    write(notes_database, 1)

    with worker(tmp_path, notes_database, redis_url):
        with locked(notes_database, f"SELECT pg_advisory_xact_lock({RELAY})"):
            await until_known(notes_database, register(stored))
            published = stored.xlen(NOTES)
        await until_published(notes_database)

    assert published == 0


async def test_of_two_workers_one_publishes_and_both_end_in_order(
    notes_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    with worker(tmp_path, notes_database, redis_url) as one, worker(tmp_path, notes_database, redis_url) as other:
        both = (one, other)
        for each in both:
            await each.until_logged("worker.started")
        write(notes_database, *range(1, 51), subjects=20)
        authors = [register(stored) for _ in range(50)]
        await until_published(notes_database)
        for author_id in authors:
            await until_known(notes_database, author_id)

        for each in both:
            each.process.send_signal(signal.SIGTERM)
        codes = [each.process.wait(10) for each in both]

    assert codes == [0, 0], one.output() + other.output()
    assert stored.xlen(NOTES) == 20 * 50
    assert [len(each.log("worker.stopped")) for each in both] == [1, 1]


async def test_a_defect_of_one_part_ends_the_worker_and_names_the_part(
    notes_database: TestDatabase, redis_url: str, tmp_path: Path
) -> None:
    notes_database.query("ALTER TABLE inbox_state RENAME COLUMN position TO elsewhere")
    try:
        with worker(tmp_path, notes_database, redis_url) as ours:
            code = ours.process.wait(30)
    finally:
        notes_database.query("ALTER TABLE inbox_state RENAME COLUMN elsewhere TO position")

    assert code == 1
    assert "This part of the worker has failed: consumer." in ours.output()
