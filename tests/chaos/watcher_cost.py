"""`python -m tests.chaos.watcher_cost`: what a thousand watchers cost one replica, and how soon the last one hears.

They come straight to the replica, with TLS, a hundred to a connection. They are in one process on the same machine, so
what the last one hears includes the time that it takes to read for all. Nothing else should run beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from grpc import aio
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import until
from devstack.debug_channel import debug_credentials, debug_options
from devstack.settings import Settings
from devstack.stack import Stack
from tests.support.logins import NO_LIMITS
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from devstack.services import Replica

_WATCHERS = 1000
_TO_A_CONNECTION = 100
_CHANGES = 50
_ADD = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    VALUES (gen_random_uuid(), 'order.created', gen_random_uuid(), 1,
            jsonb_build_object('userId', gen_random_uuid()), '', now())
"""


def rss_mb(replica: Replica) -> float:
    pages = int(Path(f"/proc/{replica.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_s(replica: Replica) -> float:
    fields = Path(f"/proc/{replica.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Crowd:
    """Many who watch.

    Attributes:
        opened: how many have had their first message.
        heard_s: the times at which watchers received each change.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.signs_of_life = 0
        self.heard_s: dict[str, list[float]] = {}

    async def until_open(self, count: int) -> None:
        """Return once this number of watchers has had a first message."""

        async def are_open() -> bool:
            return self.opened >= count

        await until(are_open, timeout_s=60)

    async def until_alive(self, count: int) -> None:
        """Return once this number of watchers has had a heartbeat too."""

        async def are_alive() -> bool:
            return self.signs_of_life >= 2 * count

        await until(are_alive, timeout_s=60)

    async def until_told(self, count: int, *, changes: int) -> None:
        """Return once this number of watchers has received this number of changes."""

        async def are_told() -> bool:
            return len(self.heard_s) == changes and all(len(times) == count for times in self.heard_s.values())

        await until(are_told, timeout_s=60)

    async def watch(self, channel: aio.Channel) -> None:
        is_open = False
        async for message in OrderServiceStub(channel).WatchOrders(pb.WatchOrdersRequest()):
            self.opened += not is_open
            is_open = True
            self.signs_of_life += not message.HasField("change")
            if message.HasField("change"):
                self.heard_s.setdefault(message.change.id, []).append(time.monotonic())


@contextlib.asynccontextmanager
async def crowd(stack: Stack, replica: Replica, count: int) -> AsyncIterator[Crowd]:
    async with contextlib.AsyncExitStack() as channels:
        watching = Crowd()
        credentials, options = debug_credentials(stack.certificates), debug_options(replica.service.name)
        tasks = []
        for first in range(0, count, _TO_A_CONNECTION):
            own = [*options, ("grpc.use_local_subchannel_pool", 1)]
            channel = await channels.enter_async_context(aio.secure_channel(replica.address, credentials, own))
            size = min(_TO_A_CONNECTION, count - first)
            tasks += [asyncio.create_task(watching.watch(channel)) for _ in range(size)]
        started = time.monotonic()
        await watching.until_open(count)
        print(f"{count} streams opened in {time.monotonic() - started:.1f} s")
        yield watching
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def measure(stack: Stack) -> None:
    [replica] = stack.replicas("order_svc")
    assert stack.postgres
    database = psycopg.connect(stack.postgres.superuser_url("orders"), autocommit=True)
    async with crowd(stack, replica, 10) as few:
        database.execute(_ADD)
        await few.until_told(10, changes=1)
    before_mb = rss_mb(replica)
    async with crowd(stack, replica, _WATCHERS) as watching:
        await watching.until_alive(_WATCHERS)
        idle, began = cpu_s(replica), time.monotonic()
        await asyncio.sleep(20)  # what is measured
        idle_rate = (cpu_s(replica) - idle) / (time.monotonic() - began)
        open_mb = rss_mb(replica)
        used, began = cpu_s(replica), time.monotonic()
        lags_ms = []
        for number in range(1, _CHANGES + 1):
            committed = await asyncio.to_thread(_commit, database)
            await watching.until_told(_WATCHERS, changes=number)
            lags_ms.append(1000 * (max(times[-1] for times in watching.heard_s.values()) - committed))
        took = time.monotonic() - began
        per_change_ms = 1000 * (cpu_s(replica) - used - idle_rate * took) / _CHANGES
        after_mb = rss_mb(replica)
    database.close()
    each_kb = 1024 * (after_mb - before_mb) / _WATCHERS
    print(f"memory: {before_mb:.0f} MB without watchers, {open_mb:.0f} MB with {_WATCHERS} of them,")
    print(f"    {after_mb:.0f} MB after {_CHANGES} changes: {each_kb:.0f} KB a watcher")
    print(
        f"cpu: {1000 * idle_rate:.0f} ms a second while nothing changes, {per_change_ms:.0f} ms to tell all of a change"
    )
    print(f"commit to the last one: median {statistics.median(lags_ms):.0f} ms, at most {max(lags_ms):.0f} ms")


def _commit(database: psycopg.Connection[tuple[object, ...]]) -> float:
    database.execute(_ADD)
    return time.monotonic()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home", edge_port=free_port(), replicas=1, **NO_LIMITS)
        with Stack(settings) as stack:
            asyncio.run(measure(stack))
            stack.kill()


if __name__ == "__main__":
    main()
