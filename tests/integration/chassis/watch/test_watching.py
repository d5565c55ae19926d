"""WatchOrders: every change is delivered once, in order, to its owner and to staff."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from grpc import aio
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.events import outbox
from chassis.testing import admins_token, new_uuid, plain_channel, token_of
from chassis.watch.settings import WatchSettings
from tests.integration.event_flow import opened
from tests.integration.inprocess import database_settings, order_service
from tests.integration.watching import INSERT, NARROW, ids_in, seen, watching, write
from tests.support.requests import create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.database import Database
    from tests.integration.conftest import TestDatabase


NIL = str(uuid.UUID(int=0))
WRITERS = 6
WRITES_EACH = 40
BUYERS = [new_uuid(), new_uuid()]


@pytest.fixture
async def channel(orders_address: str) -> AsyncIterator[aio.Channel]:
    """An admin's channel to the order service."""
    async with plain_channel(orders_address) as channel:
        yield channel


@pytest.fixture
def orders(channel: aio.Channel) -> OrderServiceAsyncStub:
    return OrderServiceStub(channel)


async def test_a_change_is_delivered_as_it_happens(
    channel: aio.Channel, orders: OrderServiceAsyncStub, buyer: User
) -> None:
    async with watching(channel) as watch:
        first = await watch.message()
        placed = await orders.CreateOrder(create_order_request(buyer.id))
        confirmed = await orders.UpdateOrderStatus(
            pb.UpdateOrderStatusRequest(id=placed.id, status=order_pb2.ORDER_STATUS_CONFIRMED)
        )
        was_placed, was_confirmed = await watch.changes(2)

    assert first == pb.WatchOrdersResponse(resume_token=NIL)
    assert was_placed == order_pb2.OrderChange(
        id=was_placed.id,
        order_id=placed.id,
        user_id=buyer.id,
        to_status=order_pb2.ORDER_STATUS_PENDING,
        etag=placed.etag,
        occurred_at=placed.updated_at,
    )
    assert was_confirmed == order_pb2.OrderChange(
        id=watch.token,
        order_id=placed.id,
        user_id=buyer.id,
        from_status=order_pb2.ORDER_STATUS_PENDING,
        to_status=order_pb2.ORDER_STATUS_CONFIRMED,
        etag=confirmed.etag,
        occurred_at=confirmed.updated_at,
    )


async def test_a_stream_resumed_with_a_token_delivers_the_missed_changes_once(
    channel: aio.Channel, orders: OrderServiceAsyncStub, buyer: User
) -> None:
    placed = [(await orders.CreateOrder(create_order_request(buyer.id))).id for _ in range(3)]

    async with watching(channel, token=NIL) as watch:
        told = await watch.changes(2)
        token = watch.token
    async with watching(channel, token=token) as watch:
        told += await watch.changes(1)
        placed.append((await orders.CreateOrder(create_order_request(buyer.id))).id)
        told += await watch.changes(1)

    assert seen(told) == [(order_id, "v1") for order_id in placed]


async def test_owners_watch_their_own_orders_and_staff_all_or_one_buyers(
    channel: aio.Channel, orders: OrderServiceAsyncStub, users: UserServiceAsyncStub, buyer: User
) -> None:
    other = await users.CreateUser(create_user_request())
    async with (
        watching(channel, access=token_of(buyer.id)) as owners,
        watching(channel, access=token_of(buyer.id), user_id=other.id) as curious,
        watching(channel, user_id=other.id) as of_other,
        watching(channel) as of_all,
    ):
        for watch in (owners, curious, of_other, of_all):
            await watch.message()
        by_other = await orders.CreateOrder(create_order_request(other.id))
        by_buyer = await orders.CreateOrder(create_order_request(buyer.id))

        assert seen(await of_all.changes(2)) == [(by_other.id, "v1"), (by_buyer.id, "v1")]
        async with (
            watching(channel, token=NIL, access=token_of(buyer.id)) as owners_later,
            watching(channel, token=NIL, access=token_of(buyer.id), user_id=other.id) as curious_later,
        ):
            for watch in (owners, curious, of_other, owners_later, curious_later):
                await watch.passes(of_all.token)
    [of_others_order, of_buyers_order] = of_all.told
    assert owners.told == owners_later.told == [of_buyers_order]
    assert of_other.told == [of_others_order]
    assert curious.told == curious_later.told == []


async def test_a_change_committed_after_a_stream_began_is_delivered(
    channel: aio.Channel, orders_database: TestDatabase
) -> None:
    write(orders_database, 1)
    with orders_database.connect() as session:
        session.execute("BEGIN")
        session.execute(INSERT, (1,))  # it takes its position before the changes that are committed first
        write(orders_database, 2)
        async with watching(channel) as first, watching(channel) as second:
            [begun, _] = [await watch.message() for watch in (first, second)]
            session.execute("COMMIT")
            told = [await watch.changes(3) for watch in (first, second)]

    before, *rest = ids_in(orders_database)
    assert begun.resume_token == before
    assert [[change.id for change in changes] for changes in told] == [rest, rest]


async def test_a_stream_that_catches_up_from_far_back_sends_heartbeats(
    orders_database: TestDatabase, users_address: str
) -> None:
    write(orders_database, 60)
    hasty = WatchSettings(poll_s=0.02, page=1, heartbeat_s=1e-6)
    async with (
        order_service(database_settings(orders_database.url), users=users_address, watching=hasty) as address,
        plain_channel(address) as channel,
        watching(channel) as at_the_end,
    ):
        await at_the_end.message()
        async with watching(channel, token=NIL, user_id=new_uuid()) as watch:
            tokens = [(await watch.message()).resume_token for _ in range(30)]

    # Its position, so that it resumes there after it was cut off, and not at the beginning.
    assert watch.told == []
    assert tokens == [NIL, *ids_in(orders_database)[:29]]


async def test_a_change_read_while_catching_up_is_not_delivered_again_by_the_hub(
    orders_database: TestDatabase, users_address: str
) -> None:
    seldom = WatchSettings(poll_s=0.5)
    async with (
        order_service(database_settings(orders_database.url), users=users_address, watching=seldom) as address,
        plain_channel(address) as channel,
        watching(channel) as first,
    ):
        await first.message()
        write(orders_database, 3)
        async with watching(channel, token=NIL) as second:
            await second.changes(3)
            await first.changes(3)  # later: from here on both receive the same changes at once
            write(orders_database, 1)
            await asyncio.gather(first.change(), second.change())

    assert first.told == second.told == ids_in(orders_database)


async def test_a_change_published_while_a_stream_catches_up_is_delivered(
    orders_database: TestDatabase, users_address: str
) -> None:
    write(orders_database, 400)  # more than the narrow channel holds, and less than a page
    async with (
        order_service(
            database_settings(orders_database.url), users=users_address, watching=WatchSettings(poll_s=0.02, page=500)
        ) as address,
        plain_channel(address) as channel,
        aio.insecure_channel(address, options=NARROW) as narrow_channel,
        watching(channel) as quick,
    ):
        await quick.message()
        async with watching(narrow_channel, token=NIL, access=admins_token()) as slow:
            await slow.change()
            write(orders_database, 50)
            await quick.changes(50)
            await slow.changes(449)

    assert slow.told == ids_in(orders_database)


async def test_a_stream_resumed_again_and_again_under_load_delivers_each_change_once_and_in_order(
    orders_database: TestDatabase, users_address: str
) -> None:
    chance = random.Random(1)
    settings = database_settings(orders_database.url)
    watching_closely = WatchSettings(poll_s=0.005, page=3, heartbeat_s=0.05)

    async def write(database: Database) -> None:
        for _ in range(WRITES_EACH):
            await asyncio.sleep(chance.random() / 50)  # the pace of the writers
            buyer = {"userId": chance.choice(BUYERS)}
            event = outbox.Event("order.created", uuid.uuid4(), 1, buyer, datetime.now(UTC))
            await database.transaction(lambda connection, event=event: outbox.add(connection, [event]))

    async def come_and_go(channel: aio.Channel, user_id: str, count: int) -> list[str]:
        told: list[str] = []
        token = NIL
        while len(told) < count:
            async with watching(channel, token=token, user_id=user_id) as watch:
                for _ in range(min(chance.randint(1, 12), count - len(told))):
                    await watch.change()
            told += watch.told
            token = watch.token
        return told

    async with (
        order_service(settings, users=users_address, watching=watching_closely) as address,
        plain_channel(address) as channel,
        opened(orders_database.url) as database,
        watching(channel) as staying,
    ):
        await staying.message()
        await asyncio.gather(*(write(database) for _ in range(WRITERS // 2)))
        writing = asyncio.gather(*(write(database) for _ in range(WRITERS // 2)))
        of_all = [come_and_go(channel, "", WRITERS * WRITES_EACH) for _ in range(3)]
        told = await asyncio.gather(*of_all)
        await writing
        rows = orders_database.query("SELECT id, data ->> 'userId' FROM outbox ORDER BY transaction, position")
        of_one = [str(event_id) for event_id, buyer in rows if buyer == BUYERS[0]]
        told_of_one = await come_and_go(channel, BUYERS[0], len(of_one))
        await staying.changes(len(rows))

    everything = [str(event_id) for event_id, _ in rows]
    assert len(everything) == WRITERS * WRITES_EACH
    assert [*told, staying.told] == [everything] * 4
    assert told_of_one == of_one
