"""The sweep of kept answers: what it removes, what it passes over, and that nothing ends it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from chassis.idempotency.key import LIFETIME
from chassis.idempotency.store import sweep_forever
from chassis.testing import until
from tests.integration.event_flow import opened
from tests.integration.row_locks import holding, locking
from tests.support.builders import OURS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from chassis.database import Database
    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase


def keep(database: TestDatabase, **created_at: datetime) -> None:
    """Write a key of each caller, made at this time."""
    columns = "caller, method, request_id, fingerprint, created_at"
    for caller, at in created_at.items():
        database.query(f"INSERT INTO idempotency_keys ({columns}) VALUES (%s, '', %s, '', %s)", caller, OURS, at)


def has_keys_of(database: TestDatabase, *callers: str) -> Callable[[], Awaitable[bool]]:
    """Return the question whether the keys of these callers are all that is left."""

    async def ask() -> bool:
        rows = await asyncio.to_thread(database.query, "SELECT caller FROM idempotency_keys")
        return {caller for (caller,) in rows} == set(callers)

    return ask


@asynccontextmanager
async def sweeping(database: TestDatabase, clock: ManualClock, *, every_s: float = 0.01) -> AsyncIterator[Database]:
    async with opened(database.url) as opened_database:
        sweep = asyncio.create_task(sweep_forever(opened_database, clock, every_s=every_s))
        yield opened_database
        sweep.cancel()
        await asyncio.gather(sweep, return_exceptions=True)


async def some_transactions(database: Database) -> None:
    """Run twenty transactions: a sweep that does not rest has its turn between two of them."""
    for _ in range(20):
        await database.transaction(lambda connection: connection.exec_driver_sql("SELECT 1").all())


async def test_a_locked_key_is_skipped_and_delays_nothing(notes_database: TestDatabase, clock: ManualClock) -> None:
    expired = clock.now() - LIFETIME - timedelta(seconds=1)
    keep(notes_database, held=expired, free=expired, young=clock.now() - LIFETIME)

    with holding(notes_database, locking("SELECT 1 FROM idempotency_keys WHERE caller = 'held' FOR UPDATE")):
        async with sweeping(notes_database, clock):
            await until(has_keys_of(notes_database, "held", "young"))

    async with sweeping(notes_database, clock):
        await until(has_keys_of(notes_database, "young"))


async def test_a_sweep_that_fails_is_tried_again(notes_copy: TestDatabase, clock: ManualClock) -> None:
    keep(notes_copy, old=clock.now() - LIFETIME - timedelta(seconds=1), young=clock.now())
    notes_copy.query("ALTER TABLE idempotency_keys RENAME TO away")

    with structlog.testing.capture_logs() as logs:

        async def has_failed() -> bool:
            return {"idempotency.sweep_failed"} <= {entry["event"] for entry in logs}

        async with sweeping(notes_copy, clock):
            await until(has_failed)
            notes_copy.query("ALTER TABLE away RENAME TO idempotency_keys")

            await until(has_keys_of(notes_copy, "young"))


async def test_a_sweep_removes_all_that_has_expired_and_then_rests(
    notes_database: TestDatabase, clock: ManualClock
) -> None:
    expired = clock.now() - LIFETIME - timedelta(seconds=1)
    columns = "caller, method, request_id, fingerprint, created_at"
    many = f"INSERT INTO idempotency_keys ({columns}) SELECT 'old', n::text, %s, '', %s FROM generate_series(1, 2001) n"
    notes_database.query(many, OURS, expired)

    async with sweeping(notes_database, clock, every_s=3600) as database:
        await until(has_keys_of(notes_database))
        await some_transactions(database)  # the sweep ends with a batch that finds nothing
        keep(notes_database, new=expired)
        await some_transactions(database)

    assert notes_database.query("SELECT caller FROM idempotency_keys") == [("new",)]


async def test_a_replica_whose_clock_is_ahead_removes_no_key_early(
    notes_database: TestDatabase, clock: ManualClock
) -> None:
    keep(notes_database, old=clock.now() - LIFETIME - timedelta(minutes=1), young=clock.now() - timedelta(hours=1))
    clock.advance(timedelta(days=2))

    async with sweeping(notes_database, clock, every_s=3600) as database:
        await until(has_keys_of(notes_database, "young"))
        await some_transactions(database)

    assert notes_database.query("SELECT caller FROM idempotency_keys") == [("young",)]
