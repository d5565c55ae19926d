"""Calls of a channel that is closed before them, or while they run."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from chassis.testing import LOOPBACK
from protos.client import Login, ShopError, connect, connect_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNARY, STREAM = "/closing.v1.Toys/Get", "/closing.v1.Toys/Watch"


class Toys:
    """A server whose answers come when `may_answer` is set; `is_asked` says that a call has arrived."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def get(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        self.is_asked.set()
        self.may_answer.wait(5)
        return b""

    def watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self.get(request, context)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        get = grpc.unary_unary_rpc_method_handler(self.get)
        watch = grpc.unary_stream_rpc_method_handler(self.watch)
        # With a Login a call waits first for its log-in.
        log_in = {"CreateSession": get}
        return [
            grpc.method_handlers_generic_handler("closing.v1.Toys", {"Get": get, "Watch": watch}),
            grpc.method_handlers_generic_handler("shop.user.v1.SessionService", log_in),
        ]


@pytest.fixture
def toys() -> Toys:
    return Toys()


@pytest.fixture
def address(toys: Toys) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(toys.handlers())
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    yield f"{LOOPBACK}:{port}"
    toys.may_answer.set()
    server.stop(None)


# As a stub has it: its methods are registered, and looked up in the channel at the first call.
def unary(channel: Any) -> Any:
    return channel.unary_unary(UNARY, _registered_method=True)


def stream(channel: Any) -> Any:
    return channel.unary_stream(STREAM, _registered_method=True)


def streams(channel: Any) -> Callable[[bytes], object]:
    # Without an interceptor the method is looked up here.
    return lambda request: channel.stream_stream(STREAM, _registered_method=True)(iter([request]))


@pytest.mark.parametrize("is_used", [False, True], ids=["unused", "used"])
@pytest.mark.parametrize(
    ("rpc_of", "call"),
    [
        (unary, lambda rpc: rpc(b"")),
        (unary, lambda rpc: rpc.with_call(b"")),
        (unary, lambda rpc: rpc.future(b"").result(timeout=5)),
        (stream, lambda rpc: next(rpc(b""))),
        (streams, lambda rpc: rpc(b"")),
    ],
    ids=["call", "with_call", "future", "stream", "streams"],
)
def test_a_closed_channel_refuses_calls(
    address: str, toys: Toys, rpc_of: Callable[[Any], Any], call: Callable[[Any], object], *, is_used: bool
) -> None:
    toys.may_answer.set()
    with connect_sync(address) as channel:
        rpc = rpc_of(channel)
        if is_used:
            call(rpc)

    with pytest.raises(ValueError, match="the channel is closed: make calls before it is closed, or connect again"):
        call(rpc)


def test_a_channel_that_is_closed_twice_is_closed(address: str) -> None:
    channel = connect_sync(address)
    channel.close()
    channel.close()

    with pytest.raises(ValueError, match="the channel is closed"):
        unary(channel)(b"")


async def first(messages: Any) -> object:
    return await anext(aiter(messages))


both_kinds = pytest.mark.parametrize(
    ("rpc_of", "call"),
    [(unary, lambda rpc: rpc(b"")), (stream, lambda rpc: first(rpc(b"")))],
    ids=["call", "stream"],
)


@both_kinds
@pytest.mark.parametrize("token", ["token", Login("ada@example.com", "correct horse battery")], ids=["token", "login"])
async def test_a_closed_channel_of_asyncio_refuses_calls(
    address: str, rpc_of: Callable[[Any], Any], call: Callable[[Any], Any], token: Any
) -> None:
    async with connect(address, token=token) as channel:
        rpc = rpc_of(channel)

    with pytest.raises(ValueError, match="the channel is closed: make calls before it is closed, or connect again"):
        await call(rpc)


@both_kinds
@pytest.mark.parametrize("token", [None, Login("ada@example.com", "correct horse battery")], ids=["open", "login"])
async def test_the_calls_of_a_channel_end_with_an_error_when_it_is_closed(
    address: str, toys: Toys, rpc_of: Callable[[Any], Any], call: Callable[[Any], Any], token: Any
) -> None:
    channel = connect(address, token=token)
    calling = asyncio.ensure_future(call(rpc_of(channel)))
    await asyncio.to_thread(toys.is_asked.wait, 5)

    await channel.close()

    with pytest.raises(ShopError, match=r"CANCELLED: The channel was closed\."):
        await calling


@both_kinds
async def test_a_caller_that_is_cancelled_as_its_channel_is_closed_is_cancelled(
    address: str, toys: Toys, rpc_of: Callable[[Any], Any], call: Callable[[Any], Any]
) -> None:
    channel = connect(address)
    calling = asyncio.ensure_future(call(rpc_of(channel)))
    await asyncio.to_thread(toys.is_asked.wait, 5)

    calling.cancel()
    await channel.close()

    with pytest.raises(asyncio.CancelledError):
        await calling


@both_kinds
async def test_a_caller_that_is_cancelled_is_cancelled(
    address: str, toys: Toys, rpc_of: Callable[[Any], Any], call: Callable[[Any], Any]
) -> None:
    async with connect(address) as channel:
        calling = asyncio.ensure_future(call(rpc_of(channel)))
        await asyncio.to_thread(toys.is_asked.wait, 5)

        calling.cancel()

        with pytest.raises(asyncio.CancelledError):
            await calling


async def test_a_call_that_is_cancelled_itself_is_cancelled(address: str, toys: Toys) -> None:
    async with connect(address) as channel:
        call = unary(channel)(b"")
        await asyncio.to_thread(toys.is_asked.wait, 5)

        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call
