"""Many calls at once: slow replicas stay in use, one that is gone costs no call, and too many calls are refused."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode, aio

from chassis.server.contract import service_names
from chassis.server.method_wrapper import MAX_LISTS_WAITING
from chassis.server.receiving import Receiver
from chassis.testing import LOOPBACK, new_uuid, refusal_from, until
from tests.integration.envoy.test_edge_config import CONTRACT
from tests.integration.envoy.test_hanging_replicas import DEADLINE_S, edge_of
from tests.support.hanging import Replica, serving
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from grpc.aio import UnaryUnaryCall

READ, WRITE = "/shop.user.v1.UserService/GetUser", "/shop.user.v1.UserService/DeleteUser"
LIST = "/shop.user.v1.UserService/ListUsers"
# The edge lets one connection have 100 calls at a time.
CONNECTIONS = 10
# A little less than the edge allows: lists that wait must outlast what a test does meanwhile on a busy machine.
LONGEST_CALL_S = 29


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
        return await asyncio.gather(*self.begin(rpc, times=times), return_exceptions=True)

    def begin(self, rpc: str, *, times: int, within_s: float = DEADLINE_S) -> list[UnaryUnaryCall[bytes, bytes]]:
        """Begin all calls at once, with this deadline."""
        return [
            self._channels[number % CONNECTIONS].unary_unary(rpc)(b"", metadata=self._metadata, timeout=within_s)
            for number in range(times)
        ]


async def test_replicas_that_are_slow_stay_in_use(tmp_path: Path) -> None:
    replicas = [Replica(answers_after_s=1.3), Replica(answers_after_s=1.3)]
    admin_port = free_port()
    in_use: list[str] = []

    async def watch(admin: httpx.AsyncClient) -> None:
        while True:
            stats = (await admin.get("/stats?filter=^cluster.user_svc.membership_healthy$")).text
            in_use.append(stats.strip())
            await asyncio.sleep(0.1)  # between two looks

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

    assert is_overloaded(over_rest)
    assert is_overloaded(over_grpc)


def is_overloaded(answer: httpx.Response | bytes | BaseException) -> bool:
    """Return whether the answer is `OVERLOADED` and says when to come back."""
    if isinstance(answer, httpx.Response):
        reason = answer.json()["details"][0]["reason"]
        return (answer.status_code, reason, answer.headers["retry-after"]) == (429, "OVERLOADED", "1")
    if not isinstance(answer, aio.AioRpcError):
        return False
    refusal = refusal_from(answer)
    return (refusal.code, refusal.reason, refusal.retry_after_s) == (StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 1)


@dataclass(frozen=True, slots=True)
class FullOfLists:
    """An edge that is called for more lists than it lets wait. The lists that it lets in hang at the replicas.

    Attributes:
        caller: over gRPC.
        rest: over HTTP.
        admin: Envoy's admin interface.
        replicas: that hang at lists.
        waiting: lists that were let in.
        refused: how the others were refused.
    """

    caller: Caller
    rest: httpx.AsyncClient
    admin: httpx.AsyncClient
    replicas: Sequence[Replica]
    waiting: Sequence[UnaryUnaryCall[bytes, bytes]]
    refused: Sequence[bytes | BaseException]

    async def has_tried_each_again(self) -> bool:
        """Return whether every list that waits was late, so that the edge has tried to ask another replica."""
        stats = (await self.admin.get("/stats?filter=^cluster.user_svc.upstream_rq_(retry|retry_overflow)$")).text
        return sum(int(line.rpartition(":")[2]) for line in stats.splitlines()) >= len(self.waiting)


@contextlib.asynccontextmanager
async def full_of_lists(folder: Path) -> AsyncIterator[FullOfLists]:
    replicas = [Replica(answers_after_s=0, hangs_at=[LIST]) for _ in range(2)]
    admin_port = free_port()
    lists: list[UnaryUnaryCall[bytes, bytes]] = []

    async def each_replica_has_a_list() -> bool:
        return all(replica.running for replica in replicas)

    async def each_is_refused_or_waits() -> bool:
        return sum(replica.running for replica in replicas) + sum(call.done() for call in lists) >= len(lists)

    async with (
        serving(*replicas),
        edge_of(replicas, folder, admin_port=admin_port) as client,
        caller_of(client) as caller,
        httpx.AsyncClient(base_url=client.base_url, headers=dict(client.headers), timeout=DEADLINE_S) as rest,
        httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{admin_port}", trust_env=False) as admin,
    ):
        # The connections first: while hundreds of calls begin, this process would not accept one in time.
        lists += caller.begin(LIST, times=10, within_s=LONGEST_CALL_S)
        await until(each_replica_has_a_list, timeout_s=DEADLINE_S)
        lists += caller.begin(LIST, times=590, within_s=LONGEST_CALL_S)
        await until(each_is_refused_or_waits, timeout_s=DEADLINE_S)
        refused = await asyncio.gather(*(call for call in lists if call.done()), return_exceptions=True)
        yield FullOfLists(caller, rest, admin, replicas, [call for call in lists if not call.done()], refused)


async def test_lists_that_would_wait_in_vain_are_refused_at_once(tmp_path: Path) -> None:
    [path] = [binding.path for binding in CONTRACT.bindings if binding.rpc == LIST]

    async with full_of_lists(tmp_path) as edge:
        over_rest = await edge.rest.get(path)
        [over_grpc] = await edge.caller.call(LIST, times=1)
        web = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        over_web = await edge.rest.post(LIST, content=bytes(5), headers=web)
        still_waiting = sum(not call.done() for call in edge.waiting)

    assert still_waiting == len(edge.waiting)
    # Two replicas make less than that in a second, after which the edge would ask another one too.
    assert MAX_LISTS_WAITING <= still_waiting < 2 * MAX_LISTS_WAITING
    assert edge.refused
    assert all(map(is_overloaded, edge.refused))
    assert is_overloaded(over_rest)
    assert is_overloaded(over_grpc)
    assert (over_web.headers["grpc-status"], over_web.headers["retry-after"]) == ("8", "1")


async def test_lists_leave_other_calls_their_places(tmp_path: Path) -> None:
    async with full_of_lists(tmp_path) as edge:
        await until(edge.has_tried_each_again, timeout_s=DEADLINE_S)
        over_rest = await edge.rest.get(f"/api/v1/users/{new_uuid()}")
        over_grpc = [await edge.caller.call(rpc, times=100) for rpc in (READ, WRITE)]

    assert over_rest.status_code == 200
    assert over_grpc == [[b""] * 100] * 2


async def test_other_calls_leave_lists_their_places(tmp_path: Path) -> None:
    replicas = [Replica(answers_after_s=0, hangs_at=[WRITE]) for _ in range(2)]

    async def is_full() -> bool:
        return sum(replica.running for replica in replicas) == 5

    async with serving(*replicas), edge_of(replicas, tmp_path, max_requests=5) as client, caller_of(client) as caller:
        writes = caller.begin(WRITE, times=5)
        await until(is_full)
        [another_write] = await caller.call(WRITE, times=1)
        lists = await caller.call(LIST, times=100)
        for write in writes:
            write.cancel()

    assert is_overloaded(another_write)
    assert lists == [b""] * 100


async def test_a_list_that_waits_is_answered_although_no_place_is_left_for_its_second_try(tmp_path: Path) -> None:
    async with full_of_lists(tmp_path) as edge:
        await until(edge.has_tried_each_again, timeout_s=DEADLINE_S)
        tries = sum(replica.calls[LIST] for replica in edge.replicas)
        for replica in edge.replicas:
            replica.go_on()
        answers = await asyncio.gather(*edge.waiting)

    assert tries == len(edge.waiting)
    assert answers == [b""] * len(edge.waiting)


def test_the_edge_limits_the_same_methods_as_lists_as_the_services() -> None:
    service_names()  # loads every stub
    find_service = descriptor_pool.Default().FindServiceByName

    def is_list(service: str, method: str) -> bool:
        request = GetMessageClass(find_service(service).FindMethodByName(method).input_type)
        handler = grpc.unary_unary_rpc_method_handler(lambda *_call: b"", request_deserializer=request.FromString)
        return Receiver(handler).is_list

    for service in CONTRACT.services:
        of_service = [method for method in CONTRACT.methods(service) if is_list(service, method)]
        assert CONTRACT.lists(service) == of_service
