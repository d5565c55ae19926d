"""Replicas that accept calls and never answer: the edge sends a read to another one, a write or a stream never."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import httpx
from grpc import aio

from chassis.client.hedging import is_read
from chassis.server.contract import service_names
from chassis.testing import new_uuid, until
from envoy.edge import SERVED_BY
from envoy.environments import laptop
from tests.integration.envoy.test_edge_config import CONTRACT, JWKS, configuration, http_filter, running
from tests.support.hanging import Replica, serving
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable
    from pathlib import Path

    from envoy.contract import Binding

# The edge begins the second try of a read after 1 s and the third after 2 s; on a busy machine later.
DEADLINE_S = 14

READS = {binding.rpc for binding in CONTRACT.bindings if binding.verb == "GET" and not binding.is_stream}
UNARY = {f"/{service}/{method}" for service in CONTRACT.services for method in CONTRACT.methods(service)}
STREAMS = {f"/{service}/{method}" for service in CONTRACT.services for method in CONTRACT.streams(service)}


class Reachable(Protocol):
    """Something at an address."""

    @property
    def address(self) -> str:
        """Host and port."""


@contextlib.asynccontextmanager
async def edge_of(
    replicas: Iterable[Reachable],
    folder: Path,
    *,
    admin_port: int | None = None,
    max_requests: int | None = None,
    ping_every_s: int | None = None,
) -> AsyncIterator[httpx.Client]:
    """Run an edge whose clusters have these replicas; yield its client with a valid token.

    Args:
        replicas: of every service.
        folder: for its configuration.
        admin_port: of Envoy's admin interface; None for any free one.
        max_requests: that a cluster has at a time, if not as many as the configuration says.
        ping_every_s: how often it pings its connections to replicas, if not as often as the configuration says.
    """
    ports = [int(replica.address.rpartition(":")[2]) for replica in replicas]
    edge = laptop(
        port=free_port(),
        admin_port=admin_port or free_port(),
        keys_port=free_port(),
        service_ports=dict.fromkeys(SERVED_BY, ports),
    )
    edge = replace(edge, rate_limit=100_000, public_write_limit=100_000)
    config = configuration(edge)
    for cluster in config["static_resources"]["clusters"]:
        if max_requests and cluster["name"] in SERVED_BY:
            cluster["circuit_breakers"]["thresholds"][0]["max_requests"] = max_requests
        if ping_every_s and cluster["name"] in SERVED_BY:
            [options] = cluster["typed_extension_protocol_options"].values()
            http2 = options["explicit_http_config"]["http2_protocol_options"]
            http2["connection_keepalive"]["interval"] = f"{ping_every_s}s"
    # No service here publishes keys.
    provider = http_filter(edge, "envoy.filters.http.jwt_authn")["providers"]["shop"]
    del provider["remote_jwks"]
    provider["local_jwks"] = {"inline_string": JWKS}
    with contextlib.ExitStack() as running_edge:
        # In a thread: the edge asks the replicas, which this one serves, for their health before it listens.
        yield await asyncio.to_thread(running_edge.enter_context, running(config, folder, port=edge.port))


async def call_over_grpc(channel: aio.Channel, rpc: str, *, token: str) -> None:
    with contextlib.suppress(aio.AioRpcError):
        await channel.unary_unary(rpc)(b"", metadata=[("authorization", token)], timeout=DEADLINE_S)


async def call_over_rest(client: httpx.AsyncClient, binding: Binding) -> None:
    path = re.sub(r"\{[^}]+\}", new_uuid(), binding.path)
    await client.request(binding.verb, path, json={} if binding.body else None)


@contextlib.asynccontextmanager
async def running_calls(calls: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Have the calls under way while the block runs."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_edge_sends_reads_to_a_second_replica_and_nothing_else(tmp_path: Path) -> None:
    replicas = [Replica(answers_after_s=math.inf), Replica(answers_after_s=math.inf)]
    unary_bindings = [binding for binding in CONTRACT.bindings if not binding.is_stream]
    calls = Counter(UNARY | STREAMS) + Counter(binding.rpc for binding in unary_bindings)

    def tries(rpc: str) -> int:
        return sum(replica.calls[rpc] for replica in replicas)

    async def every_read_is_on_its_third_try() -> bool:
        return all(tries(rpc) == 3 * calls[rpc] for rpc in READS)

    async with serving(*replicas), edge_of(replicas, tmp_path) as client:
        url, token = str(client.base_url), client.headers["authorization"]
        async with (
            aio.insecure_channel(url.removeprefix("http://")) as channel,
            httpx.AsyncClient(base_url=url, headers=dict(client.headers), timeout=DEADLINE_S) as rest,
            running_calls(
                [
                    *(call_over_grpc(channel, rpc, token=token) for rpc in UNARY | STREAMS),
                    *(call_over_rest(rest, binding) for binding in unary_bindings),
                ]
            ),
        ):
            # A write that was sent to a second replica would have been by then.
            await until(every_read_is_on_its_third_try, timeout_s=DEADLINE_S)

    assert {rpc: tries(rpc) for rpc in calls.keys() - READS} == {rpc: calls[rpc] for rpc in calls.keys() - READS}


async def test_a_read_at_a_hanging_replica_is_answered_by_the_other_one(tmp_path: Path) -> None:
    hanging, _ = replicas = [Replica(answers_after_s=math.inf), Replica(answers_after_s=0)]

    async with serving(*replicas), edge_of(replicas, tmp_path) as client:
        metadata = [("authorization", client.headers["authorization"])]
        async with aio.insecure_channel(str(client.base_url).removeprefix("http://")) as channel:
            # The edge chooses at random: again, until the hanging one was chosen.
            while not hanging.calls:
                reads = [channel.unary_unary(rpc) for rpc in sorted(READS) for _ in range(3)]
                answers = await asyncio.gather(*(read(b"", metadata=metadata, timeout=DEADLINE_S) for read in reads))

                assert answers == [b""] * len(reads)


def test_a_client_hedges_the_reads_of_the_contract_and_nothing_else() -> None:
    service_names()  # loads every stub, as a client does with those that it uses

    assert {rpc for rpc in UNARY | STREAMS if is_read(rpc)} == READS
    assert not is_read("/shop.user.v1.UserService/Nothing")
    assert not is_read("/no.such.Service/Get")
