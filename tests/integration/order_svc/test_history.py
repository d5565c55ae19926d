"""An order's history: in the order of the changes, whatever the replicas' clocks say, for its owner and staff only."""

from __future__ import annotations

import asyncio
import importlib
import itertools
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg
import pytest
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from sqlalchemy import create_engine

import chassis.events.outbox
import order_svc.repository
import order_svc.service
from chassis.clock import new_id
from chassis.server.pagination import ListRequest
from chassis.testing import ManualClock, bearer, new_uuid, plain_channel, refusal_of, token_of
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service
from tests.integration.order_svc.watching import watching
from tests.services.order_svc.placing import create_order_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from grpc import aio
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User

    from tests.integration.databases import TestDatabase

NIL: Final = "00000000-0000-0000-0000-000000000000"
WAY: Final = (
    order_pb2.ORDER_STATUS_CONFIRMED,
    order_pb2.ORDER_STATUS_PROCESSING,
    order_pb2.ORDER_STATUS_SHIPPED,
    order_pb2.ORDER_STATUS_DELIVERED,
)


class Machines:
    """Two replicas, one an hour ahead of the other.

    Attributes:
        channels: an admin's, to each.
        current: which one is asked now; its clock is in the ids that are made.
    """

    def __init__(self, channels: list[aio.Channel]) -> None:
        self.channels = channels
        self.current = 0

    def new_id(self) -> UUID:
        ahead_ms = (3_600_000, 0)[self.current]
        return UUID(int=new_id().int + (ahead_ms << 80))  # version 7 begins with the milliseconds

    def ask(self, which: int) -> OrderServiceAsyncStub:
        self.current = which
        return OrderServiceStub(self.channels[which])


@pytest.fixture
async def machines(
    orders_database: TestDatabase, users_address: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machines]:
    ahead, behind = ManualClock(), ManualClock()
    ahead.advance(timedelta(hours=1))
    settings = database_settings(orders_database.url)
    async with AsyncExitStack() as stack:
        addresses = [
            await stack.enter_async_context(order_service(settings, users=users_address, clock=clock))
            for clock in (ahead, behind)
        ]
        machines = Machines([await stack.enter_async_context(plain_channel(address)) for address in addresses])
        for module in (chassis.events.outbox, order_svc.repository, order_svc.service):
            monkeypatch.setattr(module, "new_id", machines.new_id)
        yield machines


async def make_history(machines: Machines, buyer: User, *, first: int) -> order_pb2.Order:
    """Take an order all the way, each change on the other machine than the one before."""
    turns = itertools.cycle((first, 1 - first))
    order = await machines.ask(next(turns)).CreateOrder(create_order_request(buyer.id))
    for status in WAY:
        order = await machines.ask(next(turns)).UpdateOrderStatus(
            pb.UpdateOrderStatusRequest(id=order.id, status=status)
        )
    return order


async def history_of(machines: Machines, order_id: str, *, page_size: int) -> list[int]:
    """Return the statuses of the history, its pages read from either replica in turn."""
    statuses: list[int] = []
    token = ""
    for which in (0, 1) * 5:
        request = pb.ListOrderEventsRequest(id=order_id, page_size=page_size, page_token=token)
        page = await machines.ask(which).ListOrderEvents(request)
        statuses += [event.to_status for event in page.events]
        token = page.next_page_token
        if not token:
            return statuses
    raise AssertionError("it has no end")


@pytest.mark.parametrize("first", [0, 1], ids=["first on the machine ahead", "first on the one behind"])
@pytest.mark.parametrize("page_size", [1, 2, 50])
async def test_a_history_is_in_the_order_of_the_changes(
    machines: Machines, buyer: User, first: int, page_size: int
) -> None:
    order = await make_history(machines, buyer, first=first)

    statuses = await history_of(machines, order.id, page_size=page_size)

    assert statuses == [order_pb2.ORDER_STATUS_PENDING, *WAY]


@pytest.mark.parametrize("first", [0, 1], ids=["first on the machine ahead", "first on the one behind"])
async def test_changes_are_watched_in_their_order_on_either_machine(
    machines: Machines, buyer: User, first: int
) -> None:
    async with watching(machines.channels[0]) as ahead, watching(machines.channels[1]) as behind:
        await asyncio.gather(ahead.message(), behind.message())
        await make_history(machines, buyer, first=first)
        watched = [await watch.changes(5) for watch in (ahead, behind)]
    async with watching(machines.channels[1], token=NIL) as later:
        watched.append(await later.changes(5))

    for changes in watched:
        assert [change.to_status for change in changes] == [order_pb2.ORDER_STATUS_PENDING, *WAY]


async def test_entries_that_have_no_version_yet_are_in_their_order_too(
    machines: Machines, buyer: User, orders_database: TestDatabase
) -> None:
    order = await make_history(machines, buyer, first=0)
    of_replicas_before = "UPDATE order_events SET version = NULL WHERE to_status <> 'PROCESSING'"
    orders_database.query(of_replicas_before)

    assert await history_of(machines, order.id, page_size=2) == [order_pb2.ORDER_STATUS_PENDING, *WAY]


async def test_the_migration_fills_in_the_versions(
    machines: Machines, buyer: User, orders_database: TestDatabase
) -> None:
    for _ in range(3):
        await make_history(machines, buyer, first=0)
    cancelled = await machines.ask(0).CreateOrder(create_order_request(buyer.id))
    await machines.ask(1).CancelOrder(pb.CancelOrderRequest(id=cancelled.id))
    written = orders_database.query("SELECT id, version FROM order_events ORDER BY id")
    orders_database.query("UPDATE order_events SET version = NULL")

    url = orders_database.url
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        importlib.import_module("order_svc.migrations.versions.0005_history_version").fill(connection, batch=4)
    engine.dispose()

    assert orders_database.query("SELECT id, version FROM order_events ORDER BY id") == written


async def test_a_page_token_of_a_history_opens_it_to_its_owner_and_staff_only(
    orders: OrderServiceAsyncStub, buyer: User
) -> None:
    mine, foreign = [await orders.CreateOrder(create_order_request(buyer.id)) for _ in range(2)]
    for order in (mine, foreign):
        await orders.CancelOrder(pb.CancelOrderRequest(id=order.id))
    first_page = await orders.ListOrderEvents(pb.ListOrderEventsRequest(id=mine.id, page_size=1))
    of_foreign = await orders.ListOrderEvents(pb.ListOrderEventsRequest(id=foreign.id, page_size=1))
    tokens = ListRequest(pb.ListOrderEventsRequest(id=mine.id), now=datetime.now(UTC)).tokens
    forged = [
        tokens.after(UUID(int=0)),
        tokens.after(UUID(of_foreign.events[0].id)),
        tokens.after(new_id()),
    ]
    owner, stranger = bearer(token_of(buyer.id)), bearer(token_of(new_uuid()))

    def page(token: str, *, of: str = mine.id, **options: Any) -> Awaitable[pb.ListOrderEventsResponse]:
        return orders.ListOrderEvents(pb.ListOrderEventsRequest(id=of, page_token=token), **options)

    for token in (first_page.next_page_token, *forged):
        refusal = await refusal_of(page(token, metadata=stranger))
        assert (refusal.reason, refusal.metadata) == ("ORDER_NOT_FOUND", {"orderId": mine.id})
    for token in forged:
        assert (await refusal_of(page(token, metadata=owner))).reason == "INVALID_PAGE_TOKEN"
    assert (await refusal_of(page(first_page.next_page_token, of=foreign.id))).reason == "INVALID_PAGE_TOKEN"
    for caller in (owner, ()):
        rest = await page(first_page.next_page_token, metadata=caller)
        assert [event.to_status for event in rest.events] == [order_pb2.ORDER_STATUS_CANCELLED]
