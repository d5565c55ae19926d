"""The timeouts that a caller may name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from chassis.testing import LOOPBACK
from protos.client import CallPolicy, connect, connect_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

GET, WATCH = "/timeouts.v1.Toys/Get", "/timeouts.v1.Toys/Watch"


@pytest.fixture
def address() -> Iterator[str]:
    handlers = {
        "Get": grpc.unary_unary_rpc_method_handler(lambda request, _context: request),
        "Watch": grpc.unary_stream_rpc_method_handler(lambda request, _context: iter([request])),
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("timeouts.v1.Toys", handlers)])
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield f"{LOOPBACK}:{port}"
    server.stop(None)


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e10, 2**31 / 1000])
async def test_a_timeout_may_be_as_long_as_a_caller_likes(address: str, timeout_s: float) -> None:
    policy = CallPolicy(timeout_s=timeout_s)
    with connect_sync(address, policy=policy) as channel:
        answers = [
            channel.unary_unary(GET)(b"1", timeout=timeout_s),
            channel.unary_unary(GET)(b"2"),
            *channel.unary_stream(WATCH)(b"3", timeout=timeout_s),
        ]
    async with connect(address, policy=policy) as aio_channel:
        answers += [
            await aio_channel.unary_unary(GET)(b"4", timeout=timeout_s),
            await aio_channel.unary_unary(GET)(b"5"),
            *[each async for each in aio_channel.unary_stream(WATCH)(b"6", timeout=timeout_s)],
        ]

    assert answers == [b"1", b"2", b"3", b"4", b"5", b"6"]
