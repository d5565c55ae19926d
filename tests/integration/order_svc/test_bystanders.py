"""A statement about one order leaves every other row as it was, whichever of them is older.

Ids sort by time, so each test has a neighbour on both sides: a condition that is too wide reaches one of them.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from chassis.database.keyed import Lookup
from chassis.events import outbox
from chassis.server.pagination import PageRequest
from order_svc import buyer_projection, deleted_buyers
from order_svc import repository as orders_repository
from order_svc.buyer_projection import KnownUser, UserState
from order_svc.commands import Transition
from order_svc.model import BuyerId, OrderFilter, OrderId, OrderStatus
from tests.integration.databases import rows, transaction
from tests.services.order_svc.builders import an_order
from tests.support.builders import AFTER, ALL, BEFORE, OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from order_svc.model import Order
    from tests.integration.databases import TestDatabase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def orders(orders_database: TestDatabase) -> Iterator[Connection]:
    with transaction(orders_database) as connection:
        yield connection


# Orders


def place(connection: Connection, order: Order) -> None:
    connection.exec_driver_sql(
        "INSERT INTO orders (id, user_id, status, currency_code, items, total_amount, cancel_reason, created_at,"
        " updated_at, version) VALUES (%s, %s, %s, 'EUR', '[]', 7, '', %s, %s, %s)",
        (order.id, order.user_id, order.status.value, order.created_at, order.updated_at, order.version),
    )


def an_order_of(owner: UUID, *, number: UUID = OURS, **changes: Any) -> Order:
    return an_order(id=OrderId(number), user_id=BuyerId(owner), **changes)


def updated(order: Order, status: OrderStatus) -> tuple[Transition, outbox.Event]:
    later = NOW + timedelta(minutes=5)
    changed = dataclasses.replace(order, status=status, version=order.version + 1, updated_at=later, cancel_reason="no")
    event = outbox.Event("order.status_changed", order.id, changed.version, {}, later, traceparent="")
    return Transition(changed, before=order.status, reason="why"), event


@pytest.mark.parametrize("stranger", [BEFORE, AFTER])
def test_an_owner_sees_no_order_of_a_user_with_a_neighbouring_id(orders: Connection, stranger: UUID) -> None:
    place(orders, an_order_of(OURS))
    wanted = [
        Lookup(OrderId(OURS), BuyerId(stranger)),
        Lookup(OrderId(OURS), BuyerId(OURS)),
        Lookup(OrderId(OURS)),
    ]

    found = orders_repository.lock_orders(orders, wanted, wait=True)

    assert [each is not None for each in found] == [False, True, True]


def test_each_order_is_found_by_its_own_id(orders: Connection) -> None:
    for number in ALL:
        place(orders, an_order_of(OURS, number=number))
    wanted = [Lookup(OrderId(number)) for number in (AFTER, BEFORE, UUID(int=9), OURS)]

    found = orders_repository.lock_orders(orders, wanted, wait=False)

    assert [each and each.id for each in found] == [AFTER, BEFORE, None, OURS]


def test_a_status_change_writes_its_own_order_completely_and_no_other(orders: Connection) -> None:
    placed = {number: an_order_of(OURS, number=number) for number in ALL}
    for order in placed.values():
        place(orders, order)

    orders_repository.update_orders(orders, [updated(placed[OURS], OrderStatus.CANCELLED)])

    query = "SELECT id, status, cancel_reason, updated_at, version FROM orders ORDER BY id"
    assert rows(orders, query) == [
        (BEFORE, "PENDING", "", placed[BEFORE].updated_at, 1),
        (OURS, "CANCELLED", "no", NOW + timedelta(minutes=5), 2),
        (AFTER, "PENDING", "", placed[AFTER].updated_at, 1),
    ]
    assert rows(orders, "SELECT order_id, from_status, to_status FROM order_events") == [(OURS, "PENDING", "CANCELLED")]


@pytest.mark.parametrize("version", [1, 3])
def test_an_order_is_not_written_over_an_unread_version(orders: Connection, version: int) -> None:
    place(orders, an_order_of(OURS, version=version))

    orders_repository.update_orders(orders, [updated(an_order_of(OURS, version=2), OrderStatus.CONFIRMED)])

    assert rows(orders, "SELECT status, version FROM orders") == [("PENDING", version)]


# The projection of users


def know(connection: Connection, user_id: UUID, state: UserState, *, at: datetime = NOW) -> None:
    buyer_projection.put_users(connection, [KnownUser(id=BuyerId(user_id), state=state, updated_at=at)])


def test_the_projection_of_a_user_follows_its_last_event_and_leaves_the_others(orders: Connection) -> None:
    for user_id in ALL:
        know(orders, user_id, UserState.ACTIVE)

    know(orders, OURS, UserState.SUSPENDED, at=NOW + timedelta(hours=1))

    assert rows(orders, "SELECT id, state, updated_at FROM known_users ORDER BY id") == [
        (BEFORE, "ACTIVE", NOW),
        (OURS, "SUSPENDED", NOW + timedelta(hours=1)),
        (AFTER, "ACTIVE", NOW),
    ]
    assert buyer_projection.find_states(orders, [BuyerId(OURS)]) == {OURS: UserState.SUSPENDED}


def test_a_deleted_user_stays_deleted_with_the_time_of_the_first_event(orders: Connection) -> None:
    know(orders, OURS, UserState.DELETED)

    know(orders, OURS, UserState.ACTIVE, at=NOW + timedelta(hours=1))

    assert rows(orders, "SELECT state, updated_at FROM known_users") == [("DELETED", NOW)]


def test_a_change_has_the_time_at_which_it_took_effect(orders: Connection, orders_database: TestDatabase) -> None:
    know(orders, OURS, UserState.ACTIVE)
    orders.exec_driver_sql("UPDATE known_users SET applied_at = applied_at - interval '1 day'")

    know(orders, OURS, UserState.DELETED)

    assert rows(orders, "SELECT applied_at = now() FROM known_users") == [(True,)]


def test_only_open_orders_of_the_given_users_are_found_for_cancellation_oldest_first(orders: Connection) -> None:
    numbers = [UUID(int=n) for n in range(1, 8)]
    owners = [OURS, OURS, OURS, OURS, BEFORE, AFTER, OURS]
    states = [OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.PENDING, OrderStatus.CANCELLED]
    states += [OrderStatus.PENDING, OrderStatus.PENDING, OrderStatus.PROCESSING]
    for number, owner, status in reversed(list(zip(numbers, owners, states, strict=True))):
        place(orders, an_order_of(owner, number=number, status=status))

    assert deleted_buyers.open_orders_of(orders, [BuyerId(OURS)], batch=10) == [numbers[0], numbers[2], numbers[6]]
    assert deleted_buyers.open_orders_of(orders, [BuyerId(OURS)], batch=2) == [numbers[0], numbers[2]]


def test_a_recently_deleted_user_with_open_orders_is_found_once(orders: Connection) -> None:
    long_ago, with_shipped, active = UUID(int=4), UUID(int=5), UUID(int=6)
    for user_id in (OURS, long_ago, with_shipped, BEFORE):
        know(orders, user_id, UserState.DELETED)
    for user_id in (AFTER, active):
        know(orders, user_id, UserState.ACTIVE)
    orders.exec_driver_sql("UPDATE known_users SET applied_at = now() - interval '1 hour' WHERE id = %s", (long_ago,))
    for number, owner in enumerate([OURS, OURS, long_ago, AFTER, active], start=1):
        place(orders, an_order_of(owner, number=UUID(int=number)))
    place(orders, an_order_of(with_shipped, number=UUID(int=9), status=OrderStatus.SHIPPED))

    assert deleted_buyers.deleted_with_open_orders(orders, within_s=600) == [OURS]


# Lists


def test_a_list_is_in_its_order_and_goes_on_behind_its_last(orders: Connection) -> None:
    numbers = [UUID(int=n) for n in range(1, 6)]
    for number in (numbers[2], numbers[0], numbers[4], numbers[1], numbers[3]):
        place(orders, an_order_of(OURS, number=number))
    filters = OrderFilter(owner=None, user_id=None, status=None)

    first = orders_repository.list_orders(orders, PageRequest(2, None), filters=filters)
    second = orders_repository.list_orders(orders, PageRequest(2, numbers[3]), filters=filters)

    last = orders_repository.list_orders(orders, PageRequest(2, numbers[1]), filters=filters)

    assert [([each.id.int for each in found], has_more) for found, has_more in (first, second, last)] == [
        ([5, 4], True),
        ([3, 2], True),
        ([1], False),
    ]
