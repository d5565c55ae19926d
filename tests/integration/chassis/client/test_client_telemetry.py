"""Telemetry of calls to another service, which leaves the calls unchanged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import aio

from chassis.client import CallPolicy, connect
from chassis.client.telemetry import ClientTelemetry
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Peer:
    """Another service: answers, refuses, or hangs until its caller has left."""

    def __init__(self) -> None:
        self.was_called = asyncio.Event()
        self.was_left = asyncio.Event()

    async def answer(self, _request: Empty, _context: Any) -> Empty:
        return Empty()

    async def refuse(self, _request: Empty, context: Any) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no")

    async def hang(self, _request: Empty, _context: Any) -> None:
        self.was_called.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.was_left.set()


@pytest.fixture
async def peer() -> AsyncIterator[tuple[Peer, aio.Channel]]:
    peer, server = Peer(), aio.server()
    methods = {"Answer": peer.answer, "Refuse": peer.refuse, "Hang": peer.hang}
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(each, Empty.FromString, Empty.SerializeToString)
        for name, each in methods.items()
    }
    server.add_registered_method_handlers("tests.Peer", handlers)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    address = f"{LOOPBACK}:{port}"
    async with connect(address, policy=CallPolicy(observer=ClientTelemetry(address))) as channel:
        yield peer, channel
    await server.stop(None)


def call(channel: aio.Channel, method: str) -> Any:
    return channel.unary_unary(f"/tests.Peer/{method}", Empty.SerializeToString, Empty.FromString)(Empty())


def counted(method: str, code: str) -> float:
    asked = {"rpc_system_name": "grpc", "rpc_method": f"tests.Peer/{method}", "rpc_response_status_code": code}
    asked |= {"error_type": "" if code == "OK" else code, "server_address": LOOPBACK}
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    # Each test's peer has a port of its own.
    return sum(
        sample.value
        for sample in samples
        if sample.name == "rpc_client_call_duration_seconds_count" and asked.items() <= sample.labels.items()
    )


async def test_calls_are_counted_by_their_code(peer: tuple[Peer, aio.Channel]) -> None:
    _, channel = peer
    before = counted("Answer", "OK"), counted("Refuse", "NOT_FOUND")

    await call(channel, "Answer")
    with pytest.raises(aio.AioRpcError):
        await call(channel, "Refuse")

    assert (counted("Answer", "OK"), counted("Refuse", "NOT_FOUND")) == (before[0] + 1, before[1] + 1)


async def test_a_call_that_is_given_up_is_given_up_at_the_other_end_too(peer: tuple[Peer, aio.Channel]) -> None:
    other, channel = peer
    before = counted("Hang", "CANCELLED")

    async def ask() -> None:
        await call(channel, "Hang")

    asking = asyncio.create_task(ask())
    await other.was_called.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    async with asyncio.timeout(5):  # less than the call's own deadline, 10 s
        await other.was_left.wait()
    assert counted("Hang", "CANCELLED") == before + 1
