"""Every call to Redis ends within seconds, also when no server answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chassis.events.consumer_group import ConsumerGroup
from chassis.events.redis_streams import START, BrokerDown, BrokerSettings, connect, connect_async, stream_of
from chassis.events.redis_url import RedisUrl
from chassis.events.stream import Appending, Stream
from devstack.redis import RedisServer
from tests.failover_redis.servers import missing_program
from tests.failover_redis.topologies import Alone, Cluster, Sentinels

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from redis import Redis

    from tests.failover_redis.topologies import Topology

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_program()), reason=missing_program()),
]
STREAM = stream_of("order")
# The database ends a transaction that is idle for 10 s, and the relay calls Redis in one.
BOUND_S = 10
NOTHING = Appending(events=[b"{}"], expected=START, floor=START, after=START, watermark="")
CALLS: dict[str, Callable[[ConsumerGroup], Coroutine[object, object, object]]] = {
    "look": lambda group: group.look(),
    "read": lambda group: group.read(count=10),
    "wait": lambda group: group.wait(START, wait_s=0.5),
    "ask": lambda group: group.ask(START, wait_s=0.5),
    "join": lambda group: group.create_if_missing(),
    "take over": lambda group: group.claim_stale(pause_s=lambda _: 0),
}


class WithoutPassword:
    """One server that wants no password: its client begins a connection with other commands."""

    name = "server without a password"

    def __init__(self, home: Path) -> None:
        self._server = RedisServer(Path(shutil.which("redis-server") or ""), home)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()

    def until_whole(self) -> None:
        self._server.process.wait_ready()

    def freeze(self) -> None:
        os.kill(self._server.process.pid or 0, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self._server.process.pid or 0, signal.SIGCONT)


@pytest.fixture(scope="module", params=[Alone, WithoutPassword, Sentinels, Cluster], ids=lambda kind: kind.name)
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    made: Topology = request.param(tmp_path_factory.mktemp("redis"))
    made.start()
    yield made
    made.close()


def append(client: Redis) -> None:
    Stream(client, STREAM, max_length=1000, longest=1000).append(NOTHING)


def relay_s_call(client: Redis) -> float:
    """Return how long the call took to fail."""
    began = time.monotonic()
    with pytest.raises(BrokerDown):
        append(client)
    return time.monotonic() - began


async def consumer_s_call(group: ConsumerGroup, call: str) -> float:
    """Return how long the call took to fail."""
    began = time.monotonic()
    with pytest.raises(BrokerDown):
        await CALLS[call](group)
    return time.monotonic() - began


@pytest.mark.parametrize("connected", ["connected", "not connected"])
async def test_every_call_ends_when_no_server_answers(topology: Topology, connected: str) -> None:
    topology.until_whole()
    settings = BrokerSettings(url=RedisUrl.parse(topology.url), timeout_s=2)
    async with contextlib.AsyncExitStack() as clients:
        relay = clients.enter_context(connect(settings))
        groups = {
            call: ConsumerGroup(await clients.enter_async_context(connect_async(settings)), stream=STREAM, group="test")
            for call in CALLS
        }
        if connected == "connected":
            append(relay)
            for group in groups.values():
                await group.create_if_missing()
        topology.freeze()
        try:
            took_s = await asyncio.gather(
                asyncio.to_thread(relay_s_call, relay),
                *(consumer_s_call(group, call) for call, group in groups.items()),
            )
        finally:
            topology.wake()

    named = dict(zip(("append", *groups), took_s, strict=True))
    assert max(named.values()) < BOUND_S, named
