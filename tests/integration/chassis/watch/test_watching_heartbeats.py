"""Heartbeats and changes at the same time: whatever token a stream gave, nothing before it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import plain_channel, until
from chassis.watch.settings import WatchSettings
from tests.integration.inprocess import database_settings, order_service
from tests.integration.watching import Watch, watching
from tests.support.requests import create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc import aio
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.conftest import TestDatabase

# WATCH_ROUNDS=100 makes some 100,000 deliveries of it.
ROUNDS: Final = int(os.environ.get("WATCH_ROUNDS", "4"))
WATCHES_OF_EACH: Final = 8
HEARTBEATS: Final = WatchSettings(poll_s=0.005, heartbeat_s=0.02, buffer=100_000)
WAY: Final = (order_pb2.ORDER_STATUS_CONFIRMED, order_pb2.ORDER_STATUS_PROCESSING, order_pb2.ORDER_STATUS_SHIPPED)


async def make_changes(orders: OrderServiceAsyncStub, buyers: list[str]) -> None:
    """Place an order of each buyer and move them on, each change after a heartbeat or two."""
    for _ in range(ROUNDS):
        placed = [await orders.CreateOrder(create_order_request(buyer)) for buyer in buyers]
        for status in WAY:
            for order in placed:
                await asyncio.sleep(HEARTBEATS.heartbeat_s)  # the pace of the changes, not a wait for one
                await orders.UpdateOrderStatus(pb.UpdateOrderStatusRequest(id=order.id, status=status))


@contextlib.asynccontextmanager
async def many_watches(channel: aio.Channel, buyers: list[str]) -> AsyncIterator[dict[str, list[Watch]]]:
    """Watch each buyer's orders, and all of them, from before the first change."""
    async with contextlib.AsyncExitStack() as streams:
        watches: dict[str, list[Watch]] = defaultdict(list)
        for whose, _ in itertools.product(("", *buyers), range(WATCHES_OF_EACH)):
            watch = await streams.enter_async_context(watching(channel, user_id=whose))
            await watch.message()
            watches[whose].append(watch)
        yield watches


async def test_no_change_is_lost_that_comes_together_with_a_heartbeat(
    orders_database: TestDatabase, users_address: str, users: UserServiceAsyncStub
) -> None:
    buyers = [(await users.CreateUser(create_user_request())).id for _ in range(2)]
    settings = database_settings(orders_database.url)
    async with (
        order_service(settings, users=users_address, watching=HEARTBEATS) as address,
        plain_channel(address) as channel,
        many_watches(channel, buyers) as watches,
    ):
        reading = [asyncio.create_task(watch.read_on()) for watch in itertools.chain(*watches.values())]
        await make_changes(OrderServiceStub(channel), buyers)
        history = history_in(orders_database)
        expected = {whose: [each for each in history if whose in {"", each[2]}] for whose in ("", *buyers)}

        async def all_have_it() -> bool:
            return all(watch.told[-1:] == [expected[whose][-1][0]] for whose in expected for watch in watches[whose])

        await until(all_have_it, timeout_s=20)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)

        order_of = {event_id: number for number, (event_id, *_) in enumerate(history)}
        for whose, of_one in expected.items():
            for watch in watches[whose]:
                assert watch.told == [event_id for event_id, *_ in of_one]
                for token, count in watch.tokens:
                    covered = [each for each in of_one if order_of[each[0]] <= order_of.get(token, -1)]
                    assert len(covered) == count, "a token is ahead of what was delivered, or behind"
        heartbeats = [token for watch in watches[buyers[0]] for token, _ in watch.tokens if token not in watch.told]
        for token in set(heartbeats[:: len(heartbeats) // 10 + 1]):
            rest = [each[0] for each in expected[buyers[0]] if order_of[each[0]] > order_of.get(token, -1)]
            async with watching(channel, token=token, user_id=buyers[0]) as again:
                await again.changes(len(rest))
            assert again.told == rest
    assert len(heartbeats) > ROUNDS


def history_in(database: TestDatabase) -> list[tuple[str, str, str]]:
    """Return the events' ids, orders and buyers, in the feed's order, once they match the orders' histories."""
    rows = database.query("SELECT id, subject, data ->> 'userId', sequence FROM outbox ORDER BY transaction, position")
    histories = dict(database.query("SELECT order_id, count(*) FROM order_events GROUP BY order_id"))
    versions: dict[object, list[int]] = defaultdict(list)
    for _, order_id, _, sequence in rows:
        versions[order_id].append(sequence)
    assert {order_id: len(each) for order_id, each in versions.items()} == histories
    assert all(each == list(range(1, len(each) + 1)) for each in versions.values())
    return [(str(event_id), str(order_id), buyer) for event_id, order_id, buyer, _ in rows]
