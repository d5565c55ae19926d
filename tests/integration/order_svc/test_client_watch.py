"""`watch`: a stream of changes that is opened again after any interruption."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from shop.order.v1.order_service_pb2 import WatchOrdersRequest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import SIGNER, admins_token, plain_channel
from chassis.watch.settings import WatchSettings
from protos.client import ShopError, connect, connect_sync, watch
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service
from tests.services.order_svc.placing import create_order_request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User

    from protos.client.connecting import Token
    from tests.integration.databases import TestDatabase

NOWHERE = "127.0.0.1:1"
both = pytest.mark.parametrize("is_sync", [False, True], ids=["aio", "sync"])


async def messages(target: str, *, token: Token, is_sync: bool, **options: Any) -> AsyncGenerator[Any, None]:
    """Yield what `watch` yields, from either kind of stub."""
    request = WatchOrdersRequest(resume_token=options.pop("resume_token", ""))
    if not is_sync:
        async with (
            connect(target, token=token) as channel,
            contextlib.aclosing(watch(OrderServiceStub(channel).WatchOrders, request, **options)) as stream,
        ):
            async for message in stream:
                yield message
        return
    with (
        connect_sync(target, token=token) as sync_channel,
        contextlib.closing(watch(OrderServiceStub(sync_channel).WatchOrders, request, **options)) as sync_stream,
    ):
        while True:
            yield await asyncio.to_thread(next, sync_stream)


@both
async def test_a_watch_goes_on_at_another_replica_and_misses_nothing(
    users_address: str, orders_database: TestDatabase, buyer: User, *, is_sync: bool
) -> None:
    settings = database_settings(orders_database.url)
    async with contextlib.AsyncExitStack() as stack:
        replicas = [contextlib.AsyncExitStack() for _ in range(2)]
        addresses = [await each.enter_async_context(order_service(settings, users=users_address)) for each in replicas]
        for each in replicas:
            stack.push_async_exit(each)
        target = "ipv4:" + ",".join(addresses)
        stream = messages(target, token=admins_token(), is_sync=is_sync)
        stack.push_async_callback(stream.aclose)
        assert not (await anext(stream)).HasField("change")

        told: list[str] = []

        async def read(count: int) -> None:
            async with asyncio.timeout(20):
                while len(told) < count:
                    message = await anext(stream)
                    if message.HasField("change"):
                        told.append(message.change.order_id)

        async with plain_channel(addresses[1]) as channel:
            stub = OrderServiceStub(channel)
            placed = [(await stub.CreateOrder(create_order_request(buyer.id))).id for _ in range(3)]
            await read(3)
            await replicas[0].aclose()
            placed += [(await stub.CreateOrder(create_order_request(buyer.id))).id for _ in range(3)]
            await read(6)

    assert told == placed


@both
async def test_a_stream_that_is_silent_is_opened_again(
    users_address: str, orders_database: TestDatabase, *, is_sync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protos.client.watching._SILENCE_S", 0.3)
    mute = WatchSettings(poll_s=0.02, heartbeat_s=55)
    async with order_service(database_settings(orders_database.url), users=users_address, watching=mute) as address:
        stream = messages(address, token=admins_token(), is_sync=is_sync)
        async with asyncio.timeout(20):
            # Only the first message of a stream comes at once.
            heard = [await anext(stream) for _ in range(3)]
        await stream.aclose()

    assert all(each.resume_token and not each.HasField("change") for each in heard)


@both
@pytest.mark.parametrize(
    ("token", "resume_token", "reason"),
    [
        (None, str(UUID(int=1)), "RESUME_TOKEN_EXPIRED"),
        ("", "", "TOKEN_INVALID"),
        (None, "no token", "INVALID_FIELDS"),
    ],
)
async def test_a_watch_ends_with_an_error_that_another_try_cannot_help(
    orders_address: str, token: str | None, resume_token: str, reason: str, *, is_sync: bool
) -> None:
    token = admins_token() if token is None else token
    stream = messages(orders_address, token=token, resume_token=resume_token, is_sync=is_sync)

    with pytest.raises(ShopError) as ended:
        await anext(stream)

    assert ended.value.reason == reason


async def test_a_watch_ends_with_an_error_when_its_channel_is_closed(orders_address: str) -> None:
    channel = connect(orders_address, token=admins_token())
    stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest())
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)

    await channel.close()

    with pytest.raises(ValueError, match="the channel is closed"):
        await asyncio.wait_for(waiting, 20)


async def test_a_watch_without_asyncio_ends_with_an_error_when_its_channel_is_closed(orders_address: str) -> None:
    channel = connect_sync(orders_address, token=admins_token())
    stream = watch(OrderServiceStub(channel).WatchOrders, WatchOrdersRequest())
    await asyncio.to_thread(next, stream)
    waiting = asyncio.ensure_future(asyncio.to_thread(next, stream))

    await asyncio.to_thread(channel.close)

    with pytest.raises(ValueError, match="the channel is closed"):
        await asyncio.wait_for(waiting, 20)


@both
@pytest.mark.parametrize("refused", ["garbage", "expired"])
async def test_a_watch_whose_token_is_refused_is_opened_with_another_one(
    orders_address: str, refused: str, *, is_sync: bool
) -> None:
    first = "e30.e30.e30" if refused == "garbage" else SIGNER.token(exp=1)
    tokens = iter([first, admins_token()])
    stream = messages(orders_address, token=lambda: next(tokens), is_sync=is_sync)

    async with asyncio.timeout(20):
        message = await anext(stream)
    await stream.aclose()

    assert message.resume_token


@both
async def test_the_patience_of_a_watch_ends(*, is_sync: bool) -> None:
    started = asyncio.get_running_loop().time()

    with pytest.raises(ShopError) as ended:
        await anext(messages(NOWHERE, token="", is_sync=is_sync, patience_s=1))

    assert ended.value.code is grpc.StatusCode.UNAVAILABLE
    assert 0.1 < asyncio.get_running_loop().time() - started < 5


async def test_a_watch_continues_after_a_token(orders_address: str, orders: OrderServiceAsyncStub, buyer: User) -> None:
    stream = messages(orders_address, token=admins_token(), is_sync=False)
    token = (await anext(stream)).resume_token
    await stream.aclose()
    placed = await orders.CreateOrder(create_order_request(buyer.id))

    later = messages(orders_address, token=admins_token(), resume_token=token, is_sync=False)
    async with asyncio.timeout(20):
        changes = [each async for each in take(later, 2)]
    await later.aclose()

    assert [each.change.order_id for each in changes] == ["", placed.id]


async def take(stream: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(stream)
