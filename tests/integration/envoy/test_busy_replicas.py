"""Many calls at once: slow replicas stay in use, one that is gone costs no call, and too many calls are refused."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import httpx
import pytest
from grpc import StatusCode, aio

from chassis.testing import LOOPBACK, new_uuid, refusal_from, until
from tests.integration.envoy.test_hanging_replicas import DEADLINE_S, edge_of
from tests.support.hanging import Replica, serving
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

READ, WRITE = "/shop.user.v1.UserService/GetUser", "/shop.user.v1.UserService/DeleteUser"
# The edge lets one connection have 100 calls at a time.
CONNECTIONS = 10


@contextlib.asynccontextmanager
async def caller_of(client: httpx.Client) -> AsyncIterator[Caller]:
    """Yield a caller of the edge over gRPC."""
    address = str(client.base_url).removeprefix("http://")
    own = [("grpc.use_local_subchannel_pool", 1)]  # else they would share one connection
    async with contextlib.AsyncExitStack() as opened:
        channels = [await opened.enter_async_context(aio.insecure_channel(address, own)) for _ in range(CONNECTIONS)]
        yield Caller(channels, token=client.headers["authorization"])


class Caller:
    """Calls over several connections."""

    def __init__(self, channels: Sequence[aio.Channel], *, token: str) -> None:
        self._channels = channels
        self._metadata = [("authorization", token)]

    async def call(self, rpc: str, *, times: int) -> list[bytes | BaseException]:
        """Call all at once; return each answer or error."""
        return await asyncio.gather(
            *(
                self._channels[number % CONNECTIONS].unary_unary(rpc)(b"", metadata=self._metadata, timeout=DEADLINE_S)
                for number in range(times)
            ),
            return_exceptions=True,
        )


async def test_replicas_that_are_slow_stay_in_use(tmp_path: Path) -> None:
    replicas = [Replica(answers_after_s=1.3), Replica(answers_after_s=1.3)]
    admin_port = free_port()
    in_use: list[str] = []

    async def watch(admin: httpx.AsyncClient) -> None:
        while True:
            stats = (await admin.get("/stats?filter=^cluster.user_svc.membership_healthy$")).text
            in_use.append(stats.strip())
            await asyncio.sleep(0.1)

    async with (
        serving(*replicas),
        edge_of(replicas, tmp_path, admin_port=admin_port) as client,
        caller_of(client) as caller,
        httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{admin_port}", trust_env=False) as admin,
    ):
        watching = asyncio.create_task(watch(admin))
        answers = await caller.call(READ, times=150)
        watching.cancel()

    assert answers == [b""] * 150
    assert set(in_use) == {"cluster.user_svc.membership_healthy: 2"}
    # Every read was late: the edge has asked again.
    assert sum(replica.calls[READ] for replica in replicas) > 150


@pytest.mark.parametrize("rpc", [READ, WRITE])
async def test_a_replica_that_is_gone_costs_no_call_however_many_come_at_once(rpc: str, tmp_path: Path) -> None:
    staying, leaving = Replica(answers_after_s=0.2), Replica(answers_after_s=0.2)

    async with serving(staying), contextlib.AsyncExitStack() as ends:
        await ends.enter_async_context(serving(leaving))
        async with edge_of([staying, leaving], tmp_path) as client, caller_of(client) as caller:
            await caller.call(READ, times=20)
            await ends.aclose()
            answers = await caller.call(rpc, times=400)

    assert answers == [b""] * 400
    assert leaving.calls[READ]


class SlowWay:
    """The way from the edge to a replica, on which nothing moves for a while: so does an overloaded replica read.

    Attributes:
        address: of its beginning.
    """

    def __init__(self, replica: Replica) -> None:
        self.address = ""
        self._replica = replica
        self._is_clear = asyncio.Event()
        self._is_clear.set()

    def block(self, *, for_s: float) -> None:
        """Let nothing pass until then."""
        self._is_clear.clear()
        asyncio.get_running_loop().call_later(for_s, self._is_clear.set)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Lead to the replica while the block runs."""
        server = await asyncio.start_server(self._connect, LOOPBACK, 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield

    async def _connect(self, edge: asyncio.StreamReader, to_edge: asyncio.StreamWriter) -> None:
        replica, to_replica = await asyncio.open_connection(*self._replica.address.split(":"))
        await asyncio.gather(self._carry(edge, to_replica), self._carry(replica, to_edge), return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.closing(target):
            while part := await source.read(65536):
                await self._is_clear.wait()
                target.write(part)


async def test_a_call_survives_that_its_busy_replica_answers_a_ping_late(tmp_path: Path) -> None:
    replica = Replica(answers_after_s=1.5)
    way = SlowWay(replica)

    async def is_under_way() -> bool:
        return replica.running == 1

    async with (
        serving(replica),
        way.open(),
        edge_of([way], tmp_path, ping_every_s=1) as client,
        caller_of(client) as caller,
    ):
        call = asyncio.create_task(caller.call(WRITE, times=1))
        await until(is_under_way)
        way.block(for_s=8)
        [answer] = await call

    assert answer == b""


async def test_more_calls_than_the_edge_holds_for_a_service_are_refused_as_overloaded(tmp_path: Path) -> None:
    replicas = [Replica(answers_after_s=math.inf), Replica(answers_after_s=math.inf)]

    async def is_full() -> bool:
        return sum(replica.running for replica in replicas) == 5

    async with (
        serving(*replicas),
        edge_of(replicas, tmp_path, max_requests=5) as client,
        caller_of(client) as caller,
        httpx.AsyncClient(base_url=client.base_url, headers=dict(client.headers), timeout=DEADLINE_S) as rest,
    ):
        waiting = asyncio.create_task(caller.call(WRITE, times=5))
        await until(is_full)
        over_rest = await rest.get(f"/api/v1/users/{new_uuid()}")
        [over_grpc] = await caller.call(READ, times=1)
        waiting.cancel()

    assert (over_rest.status_code, over_rest.headers["retry-after"]) == (429, "1")
    assert over_rest.json()["details"][0]["reason"] == "OVERLOADED"
    assert isinstance(over_grpc, aio.AioRpcError)
    refusal = refusal_from(over_grpc)
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 1)
