"""Replicas that are added to a name and removed from it: the edge finds out, and no call fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from typing_extensions import override

from chassis.testing import admins_token, plain_channel, server_settings, until
from envoy.edge import Address, Cluster, Edge
from envoy.environments import laptop
from tests.integration.envoy.test_edge_config import configuration, running
from tests.integration.inprocess import database_settings
from tests.integration.user_svc.inprocess import user_service
from tests.support.name_server import name_server
from tests.support.ports import closed_ports, free_port
from tests.support.requests import create_user_request
from tests.support.scaling import AGE_S, CALLS, FIRST, SECOND, call_while_replicas_come_and_go
from user_svc.rpc import UserServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shop.user.v1 import user_pb2
    from shop.user.v1 import user_service_pb2 as user_pb
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase


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

    assert answered >= CALLS


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
