"""Replicas that are added to a name and removed from it: callers find out, and no call fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from typing_extensions import override

from chassis.client import CallPolicy, channel
from chassis.server.settings import ServerSettings
from chassis.testing import admins_token, plain_channel, server_settings, until
from envoy.edge import Address, Cluster, Edge
from envoy.environments import laptop
from tests.integration.envoy.test_edge_config import configuration, running
from tests.integration.inprocess import database_settings, order_service, user_service
from tests.integration.watching import ids_in, watching, write
from tests.support.name_server import NameServer, name_server
from tests.support.ports import closed_ports, free_port
from tests.support.requests import create_order_request, create_user_request
from user_svc.rpc import UserServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from shop.user.v1 import user_pb2
    from shop.user.v1 import user_service_pb2 as user_pb
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.conftest import TestDatabase

FIRST, SECOND = "127.0.0.2", "127.0.0.3"
# A twentieth of the product's.
AGE_S = 1
# The default TTL of a headless service's addresses in the DNS of a Kubernetes cluster.
DNS_CACHE_S = 5
_CALLERS = 8
_CALLS = 2000
_PATIENCE_S = 30


class Replicas:
    """Two replicas of the user service, at the same port of two addresses.

    Attributes:
        port: theirs.
        calls: how often each was asked for users.
    """

    def __init__(self, database: TestDatabase) -> None:
        self.port = free_port()
        self.calls = Counter[str]()
        self._database = database

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[UserServiceAsyncStub]:
        """Serve while the block runs; yield a stub of one of them."""
        async with contextlib.AsyncExitStack() as running_replicas:
            for address in (FIRST, SECOND):
                replica = user_service(
                    database_settings(self._database.url),
                    port=self.port,
                    server=server_settings(host=address, max_connection_age_s=AGE_S),
                    servicer_class=self._counting(address),
                )
                await running_replicas.enter_async_context(replica)
            channel = await running_replicas.enter_async_context(plain_channel(f"{SECOND}:{self.port}"))
            yield UserServiceStub(channel)

    def _counting(self, address: str) -> type[UserServicer]:
        calls = self.calls

        class Counting(UserServicer):
            @override
            async def GetUser(self, request: user_pb.GetUserRequest, context: Any) -> user_pb2.User:
                calls[address] += 1
                return await super().GetUser(request, context)

            @override
            async def BatchGetUsers(
                self, request: user_pb.BatchGetUsersRequest, context: Any
            ) -> user_pb.BatchGetUsersResponse:
                calls[address] += 1
                return await super().BatchGetUsers(request, context)

        return Counting


@pytest.fixture
def replicas(users_database: TestDatabase) -> Replicas:
    return Replicas(users_database)


async def call_while_replicas_come_and_go(
    call: Callable[[], Awaitable[object]], *, names: NameServer, calls: Counter[str]
) -> int:
    """Call without a pause while the name stands for one replica, for both, and for the other one.

    Returns how many calls were answered, which is all of them.

    Raises:
        TimeoutError: a replica that was added got no call, or one that was removed still gets calls.
    """
    answered = 0
    is_over = False

    async def go_on() -> None:
        nonlocal answered
        while not is_over:
            await call()
            answered += 1

    def gets_calls(address: str) -> Callable[[], Awaitable[bool]]:
        before = calls[address]

        async def is_so() -> bool:
            return calls[address] >= before + 50

        return is_so

    async def are_enough() -> bool:
        return answered >= _CALLS

    seen = Counter[str]()

    async def is_left_alone() -> bool:
        nonlocal seen
        if calls[FIRST] != seen[FIRST]:
            seen = calls.copy()
        return calls[SECOND] >= seen[SECOND] + 200

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CALLERS):
            tasks.create_task(go_on())
        try:
            await until(gets_calls(FIRST), timeout_s=_PATIENCE_S)
            assert calls[SECOND] == 0
            names.addresses = [FIRST, SECOND]
            await until(gets_calls(SECOND), timeout_s=_PATIENCE_S)
            names.addresses = [SECOND]
            await until(is_left_alone, timeout_s=_PATIENCE_S)
            left = calls[FIRST]
            await until(are_enough, timeout_s=_PATIENCE_S)
            assert calls[FIRST] == left
        finally:
            is_over = True
    return answered


async def test_order_svc_calls_a_user_svc_that_was_added_and_leaves_one_that_was_removed(
    replicas: Replicas, orders_database: TestDatabase
) -> None:
    async with replicas.serving() as users, name_server(FIRST) as names:
        buyer = await users.CreateUser(create_user_request())
        target = f"dns://127.0.0.1:{names.port}/users.test:{replicas.port}"
        async with (
            order_service(database_settings(orders_database.url), users=target) as address,
            plain_channel(address) as channel,
        ):
            orders = OrderServiceStub(channel)
            answered = await call_while_replicas_come_and_go(
                lambda: orders.CreateOrder(create_order_request(buyer.id)), names=names, calls=replicas.calls
            )

    assert answered == orders_database.query("SELECT count(*) FROM orders")[0][0]


async def test_the_edge_calls_a_replica_that_was_added_and_leaves_one_that_was_removed(
    replicas: Replicas, tmp_path: Path
) -> None:
    async with replicas.serving() as users, name_server(FIRST) as names:
        user = await users.CreateUser(create_user_request())
        edge = edge_that_looks_up("users.test", replicas.port)
        config = {**configuration(edge), **resolver_at(names.port)}
        with contextlib.ExitStack() as running_edge:
            # In a thread: the edge asks this one for names and for the replicas' health before it listens.
            await asyncio.to_thread(running_edge.enter_context, running(config, tmp_path, port=edge.port))
            headers = {"authorization": f"Bearer {admins_token()}"}
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{edge.port}", headers=headers) as client:
                await until(lambda: is_found(client, user.id))

                async def call() -> None:
                    (await client.get(f"/api/v1/users/{user.id}")).raise_for_status()

                answered = await call_while_replicas_come_and_go(call, names=names, calls=replicas.calls)

    assert answered >= _CALLS


async def is_found(client: httpx.AsyncClient, user_id: str) -> bool:
    return (await client.get(f"/api/v1/users/{user_id}")).is_success


def edge_that_looks_up(name: str, port: int) -> Edge:
    """Return an edge that finds the replicas of the user service by this name."""
    edge = laptop(port=free_port(), admin_port=free_port(), keys_port=free_port(), service_ports=closed_ports())
    by_name = Cluster(name="user_svc", dns=Address(name, port))
    others = tuple(cluster for cluster in edge.clusters if cluster.name != "user_svc")
    return replace(edge, clusters=(by_name, *others), rate_limit=1_000_000)


def resolver_at(port: int) -> dict[str, Any]:
    """Return the part of Envoy's configuration that says whom to ask for names."""
    kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    resolver = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    config = {"@type": kind, "resolvers": [resolver]}
    return {"typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": config}}


async def test_a_stream_outlives_the_connections_age(users_address: str, orders_database: TestDatabase) -> None:
    server = server_settings(max_connection_age_s=0.2)
    settings = database_settings(orders_database.url)
    async with (
        order_service(settings, users=users_address, server=server) as address,
        plain_channel(address) as channel,
        watching(channel) as watch,
    ):
        await watch.message()
        is_old_s = asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < is_old_s:  # signs of life come in between
            await watch.message()
        write(orders_database, 1)

        await watch.change()

    assert watch.told == ids_in(orders_database)


def test_a_replica_that_is_added_is_known_within_30_s() -> None:
    options = dict(channel._options(CallPolicy()))  # noqa: SLF001  only gRPC uses them

    # gRPC spreads the ends of connections by a tenth.
    longest_s = ServerSettings().max_connection_age_s * 1.1 + options["grpc.dns_min_time_between_resolutions_ms"] / 1000
    assert longest_s + DNS_CACHE_S <= 30
