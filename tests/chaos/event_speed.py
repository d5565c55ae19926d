"""`python -m tests.chaos.event_speed`: how fast events go from a commit to their effect, and what that costs.

The processes are the services' own; the database is the laptop's, with fsync. Nothing else should run beside it.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from chassis.events.redis_streams import stream_of
from devstack.redis import RedisServer, find_redis
from tests.chaos.event_world import EventWorld, Worker
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BACKLOG = 30_000
_BUYERS = 1_000
_FILL = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    SELECT
        gen_random_uuid(),
        'order.created',
        subject,
        1,
        jsonb_build_object(
            'orderId', subject, 'userId', lpad(to_hex(number %% %s), 32, '0')::uuid,
            'amount', '12.5', 'currencyCode', 'EUR', 'total', jsonb_build_object('units', '12', 'nanos', 500000000)
        ),
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        now()
    FROM (SELECT gen_random_uuid() AS subject, number FROM generate_series(1, %s) AS number) AS orders
"""
_USERS = """
    INSERT INTO users (id, display_name, state, roles, password_hash, created_at, updated_at, version)
    SELECT lpad(to_hex(number), 32, '0')::uuid, '', 'ACTIVE', '{}', '', now(), now(), 1
    FROM generate_series(0, %s - 1) AS number
"""
_COMMITS_S = 5


def cpu_s(worker: Worker) -> float:
    """Return the CPU time that the process has used."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drain(what: str, worker: Worker, is_done: Callable[[], bool]) -> None:
    worker.until_started()
    cpu, started = cpu_s(worker), time.monotonic()
    until(is_done, timeout_s=120)
    took, used = time.monotonic() - started, cpu_s(worker) - cpu
    print(f"{what}: {_BACKLOG / took:,.0f} events/s, {1e6 * used / _BACKLOG:.0f} us of CPU an event ({took:.1f} s)")


def backlog(world: EventWorld) -> None:
    world.run(world.source, _FILL, _BUYERS, _BACKLOG)
    world.run(world.sink, _USERS, _BUYERS)
    world.run(world.source, "VACUUM ANALYZE outbox")
    drain("relay", world.relay(), world.is_all_published)
    worker = world.counter()
    counted = "SELECT sum(order_count) FROM users"
    drain("consumer", worker, lambda: world.run(world.sink, counted) == [(_BACKLOG,)])
    with world.client() as client:
        size = client.memory_usage(stream_of("order"), samples=0)
        print(f"stream: {size / client.xlen(stream_of('order')):.0f} bytes an event in Redis")
    world.end_workers()


def latency(world: EventWorld) -> None:
    relay, consumer = world.relay(), world.consumer()
    relay.until_started()
    consumer.until_started()
    before = cpu_s(relay), cpu_s(consumer)
    time.sleep(10)  # what is measured
    idle = [10 * (after - start) * 10 for after, start in zip((cpu_s(relay), cpu_s(consumer)), before, strict=True)]
    print(f"idle: relay {idle[0]:.1f} ms of CPU a second, consumer {idle[1]:.1f} ms")
    with world.written() as load:
        load.goes_on(1000)
    verdict = world.settled()
    rows = world.run(world.sink, "SELECT extract(epoch FROM at - occurred_at) * 1000 FROM audit ORDER BY 1")
    print(f"commit to effect: {_percentiles([float(ms) for (ms,) in rows])}; {verdict}")
    world.end_workers()


def notify(world: EventWorld) -> None:
    """The cost of a NOTIFY in each change's transaction."""
    world.run(world.source, "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, data text)")
    for clients in (8, 32):
        rates: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(3):
            for which, measured in rates.items():
                measured.append(_commits_per_s(world.source, clients, notifies=which == "with"))
        figures = ", ".join(f"{which} NOTIFY {statistics.median(each):,.0f}" for which, each in rates.items())
        print(f"{clients} connections, commits/s: {figures}")


def _commits_per_s(url: str, clients: int, *, notifies: bool) -> float:
    ends = time.monotonic() + _COMMITS_S
    counts = [0] * clients

    def commit(number: int) -> None:
        with psycopg.connect(url) as connection:
            while time.monotonic() < ends:
                with connection.pipeline(), connection.transaction():
                    connection.execute("INSERT INTO t (data) VALUES ('x')")
                    if notifies:
                        connection.execute("NOTIFY outbox")
                counts[number] += 1

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / _COMMITS_S


def _percentiles(values: Sequence[float]) -> str:
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, at most {values[-1]:.0f} ms"


def main() -> None:
    """Print the figures."""
    program = find_redis()
    if program is None:
        raise SystemExit("there is no redis-server")
    with (
        tempfile.TemporaryDirectory() as home,
        EventWorld(Path(home), RedisServer(program, Path(home) / "redis")) as world,
    ):
        for measure in (backlog, latency, notify):
            measure(world)
            world.empty()


if __name__ == "__main__":
    main()
