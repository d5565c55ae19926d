"""`python -m tests.chaos.recovery_cost [ROWS]`: the cost of bringing back events that Redis or a consumer has lost.

Fills an outbox with published events, ten million by default, then empties Redis, and then asks for everything.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine import Engine

from chassis.database import Database, migrations
from chassis.events import redis_streams, replay
from chassis.events.recovery import publish_again
from chassis.events.redis_streams import START, BrokerSettings, EntryId, stream_of
from chassis.events.redis_url import RedisUrl
from chassis.events.relay import Relay, RelaySettings
from chassis.testing import until
from devstack.postgres import PostgresServer
from devstack.redis import RedisServer, find_redis
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from redis import Redis

STREAM = stream_of("order")
# Half a millisecond apart, as 2,000 events a second are.
FILL = """
    INSERT INTO outbox
        (id, type, subject, sequence, data, traceparent, occurred_at, published_at, entry_ms, entry_number, epoch)
    SELECT
        gen_random_uuid(), 'order.created', gen_random_uuid(), 1,
        '{"orderId": "019b2f0a-5b1e-7c0d-8a44-3c9f2b7e6d10", "userId": "019b2f0a-5b1e-7c0d-8a44-3c9f2b7e6d11"}', '',
        now(), now(), 1700000000000 + n / 2, n %% 2, 0
    FROM generate_series(%s::bigint, %s::bigint) AS n
"""
INDEXES = "SELECT indexdef, indexname FROM pg_indexes WHERE tablename = 'outbox' AND indexname LIKE '%_idx'"

_longest = {"seconds": 0.0, "statement": ""}


def _begin(
    _connection: object, _cursor: object, _statement: str, _parameters: object, context: object, _m: object
) -> None:
    context.began = time.perf_counter()


def _end(
    _connection: object, _cursor: object, statement: str, _parameters: object, context: object, _m: object
) -> None:
    took = time.perf_counter() - context.began
    if took > _longest["seconds"]:
        _longest.update(seconds=took, statement=" ".join(statement.split())[:60])


def report(what: str, *, rows: int, seconds: float) -> None:
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what}: {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s; longest statement "
        f"{_longest['seconds'] * 1000:.0f} ms ({_longest['statement']}); memory at most {megabytes:.0f} MiB",
        flush=True,
    )
    _longest.update(seconds=0.0, statement="")


def fill(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        indexes = session.execute(INDEXES).fetchall()
        for _, name in indexes:
            session.execute(f'DROP INDEX "{name}"'.encode())
        session.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_subject_sequence_key, DROP CONSTRAINT outbox_id_key")
        for first in range(1, rows + 1, 500_000):
            session.execute(FILL, (first, min(rows, first + 499_999)))
        session.execute("ALTER TABLE outbox ADD CONSTRAINT outbox_id_key UNIQUE (id)")
        for definition, _ in indexes:
            session.execute(definition.encode())
        session.execute("VACUUM ANALYZE outbox")
        last = f"{1700000000000 + rows // 2}-{rows % 2}"
        session.execute(
            "INSERT INTO relay_state (stream, last_entry, position) VALUES (%s, %s, %s)", (STREAM, last, last)
        )


async def measure(url: str, redis_url: str, rows: int) -> None:
    with redis_streams.connect(BrokerSettings(url=RedisUrl.parse(redis_url))) as client:
        await _measure(client, url, redis_url, rows)


async def _measure(client: Redis, url: str, redis_url: str, rows: int) -> None:
    database = Database(database_settings(url), name="recovery")
    relay = Relay(database, client, resource="order", source="/order_svc", settings=RelaySettings())
    stopping = asyncio.Event()
    began = time.perf_counter()
    running = asyncio.create_task(relay.run(stopping))

    async def is_back() -> bool:
        return int(client.xlen(STREAM)) >= min(rows, 100_000)

    await until(is_back, timeout_s=300)
    report("Redis was emptied: sent again", rows=client.xlen(STREAM), seconds=time.perf_counter() - began)
    began, after, count = time.perf_counter(), START, 0
    async with redis_streams.connect_async(BrokerSettings(url=RedisUrl.parse(redis_url))) as asking:
        while count < rows and time.perf_counter() - began < 60:
            page = await replay.ask(asking, stream=STREAM, group="new", after=after, wait_s=5)
            assert page is not None
            after, count = EntryId(*page.last), count + len(page.events)
    report("a consumer that begins anew: pages", rows=count, seconds=time.perf_counter() - began)
    stopping.set()
    await running
    began = time.perf_counter()
    [(since,)] = await database.fetch(
        "SELECT min(occurred_at) FROM (SELECT occurred_at FROM outbox ORDER BY position LIMIT 1) AS o"
    )
    again = asyncio.create_task(publish_again(database, since=since))
    await asyncio.wait([again], timeout=60)
    again.cancel()
    [(marked,)] = await database.fetch("SELECT count(*) FROM outbox WHERE published_at IS NULL")
    report("a replay by hand: marked", rows=marked, seconds=time.perf_counter() - began)
    await database.close()


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    program = find_redis()
    if program is None:
        raise SystemExit("this machine has no redis-server")
    sqlalchemy_event.listen(Engine, "before_cursor_execute", _begin)
    sqlalchemy_event.listen(Engine, "after_cursor_execute", _end)
    with tempfile.TemporaryDirectory() as home, PostgresServer(Path(home) / "postgres") as server:
        with psycopg.connect(server.superuser_url(), autocommit=True) as session:
            session.execute("ALTER SYSTEM SET fsync = off")
            session.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
            session.execute("SELECT pg_reload_conf()")
        server.create_database("order_svc")
        url = server.superuser_url("order_svc")
        migrations.upgrade("order_svc", database_settings(url))
        began = time.perf_counter()
        fill(url, rows)
        print(f"filled with {rows:,} rows in {time.perf_counter() - began:.0f} s", flush=True)
        redis = RedisServer(program, Path(home) / "redis")
        redis.start()
        try:
            asyncio.run(measure(url, redis.url, rows))
        finally:
            redis.close()


if __name__ == "__main__":
    main()
