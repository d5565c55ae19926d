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
from tests.integration.replica import REPOSITORY, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from tests.integration.conftest import TestDatabase

ORDERS: Final = stream_of("order")
USERS: Final = stream_of("user")


class Worker:
    """`python -m order_svc worker`.

    Attributes:
        process: the child.
    """

    def __init__(self, log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            command = [sys.executable, "-m", "order_svc", "worker"]
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=environment(**env), stdout=output, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        return self._log.read_text()

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines with this event."""
        lines = [line for line in self.output().splitlines() if line.startswith("{")]
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
    """Let the user service publish a user."""
    user_id = uuid.uuid4()
    event = CloudEvent(
        id=uuid.uuid4(),
        source="/user_svc",
        type="user.created",
        subject=user_id,
        sequence=1,
        time=datetime.now(UTC),
        traceparent="",
        data={"userId": str(user_id), "state": "ACTIVE"},
    )
    stored.xadd(USERS, {FIELD: event.to_json().decode()})
    return user_id


async def until_known(database: TestDatabase, user_id: uuid.UUID) -> None:
    """Return once the user's event has taken effect."""

    async def is_known() -> bool:
        return database.query("SELECT 1 FROM known_users WHERE id = %s", user_id) != []

    await until(is_known, timeout_s=30)


@contextlib.contextmanager
def locked(database: TestDatabase, statement: str) -> Iterator[None]:
    """Hold what the statement locks while the block runs."""
    with psycopg.connect(database.url) as connection:
        connection.execute(statement.encode())
        yield


async def test_a_relay_that_cannot_read_the_outbox_does_not_stop_the_consumer(
    orders_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    write(orders_database, 1)

    with locked(orders_database, "LOCK TABLE outbox"), worker(tmp_path, orders_database, redis_url) as ours:
        await ours.until_logged("relay.waiting")
        await until_known(orders_database, register(stored))

        assert stored.xlen(ORDERS) == 0
        assert ours.log("consumer.waiting") == []


async def test_a_consumer_that_cannot_write_does_not_stop_the_relay(
    orders_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    with locked(orders_database, "LOCK TABLE inbox"), worker(tmp_path, orders_database, redis_url) as ours:
        await ours.until_logged("consumer.joined")
        user_id = register(stored)
        await ours.until_logged("consumer.waiting")
        write(orders_database, 1)
        await until_published(orders_database)

        assert stored.xlen(ORDERS) == 1
        assert ours.log("relay.waiting") == []

    with worker(tmp_path, orders_database, redis_url):
        await until_known(orders_database, user_id)


async def test_a_worker_whose_relay_is_on_standby_consumes(
    orders_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    write(orders_database, 1)

    with worker(tmp_path, orders_database, redis_url):
        with locked(orders_database, f"SELECT pg_advisory_xact_lock({RELAY})"):
            await until_known(orders_database, register(stored))
            published = stored.xlen(ORDERS)
        await until_published(orders_database)

    assert published == 0


async def test_of_two_workers_one_publishes_and_both_end_in_order(
    orders_database: TestDatabase, redis_url: str, stored: Redis, tmp_path: Path
) -> None:
    with worker(tmp_path, orders_database, redis_url) as one, worker(tmp_path, orders_database, redis_url) as other:
        both = (one, other)
        for each in both:
            await each.until_logged("worker.started")
        write(orders_database, *range(1, 51), subjects=20)
        users = [register(stored) for _ in range(50)]
        await until_published(orders_database)
        for user_id in users:
            await until_known(orders_database, user_id)

        for each in both:
            each.process.send_signal(signal.SIGTERM)
        codes = [each.process.wait(10) for each in both]

    assert codes == [0, 0], one.output() + other.output()
    assert stored.xlen(ORDERS) == 20 * 50
    assert [len(each.log("worker.stopped")) for each in both] == [1, 1]


async def test_a_defect_of_one_part_ends_the_worker_and_names_the_part(
    orders_database: TestDatabase, redis_url: str, tmp_path: Path
) -> None:
    orders_database.query("ALTER TABLE inbox_state RENAME COLUMN position TO elsewhere")
    try:
        with worker(tmp_path, orders_database, redis_url) as ours:
            code = ours.process.wait(30)
    finally:
        orders_database.query("ALTER TABLE inbox_state RENAME COLUMN elsewhere TO position")

    assert code == 1
    assert "This part of the worker has failed: consumer." in ours.output()
