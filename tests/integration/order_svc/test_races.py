"""Many callers at once: one wins, the others hear why, and what is kept adds up."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from grpc import aio
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import user_service_pb2 as users_pb

from chassis.testing import new_uuid, refusal_from
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from google.protobuf.message import Message
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

CONFIRMED = order_pb2.ORDER_STATUS_CONFIRMED
PROCESSING = order_pb2.ORDER_STATUS_PROCESSING
SHIPPED = order_pb2.ORDER_STATUS_SHIPPED


async def test_one_of_50_callers_gets_the_email(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    requests = [
        create_user_request(email="Ada@Example.com" if number % 2 else "ada@example.com", request_id=new_uuid())
        for number in range(50)
    ]

    outcomes = await outcomes_of(users.CreateUser(request) for request in requests)

    assert outcomes == {"OK": 1, "EMAIL_TAKEN": 49}
    for table in ("users", "outbox", "idempotency_keys"):
        assert users_database.query(f"SELECT count(*) FROM {table}") == [(1,)]


async def test_one_of_20_users_gets_the_email_that_all_change_to(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    created = [await users.CreateUser(create_user_request()) for _ in range(20)]

    outcomes = await outcomes_of(
        users.UpdateUser(users_pb.UpdateUserRequest(id=user.id, email="ada@example.com")) for user in created
    )

    assert outcomes == {"OK": 1, "EMAIL_TAKEN": 19}
    assert users_database.query("SELECT count(*) FROM users WHERE email_key = 'ada@example.com'") == [(1,)]


async def test_users_who_swap_emails_never_end_with_one(users: UserServiceAsyncStub) -> None:
    for _ in range(10):
        ada = await users.CreateUser(create_user_request())
        bob = await users.CreateUser(create_user_request())

        outcomes = await outcomes_of(
            [
                users.UpdateUser(users_pb.UpdateUserRequest(id=ada.id, email=bob.email)),
                users.UpdateUser(users_pb.UpdateUserRequest(id=bob.id, email=ada.email)),
            ]
        )

        assert set(outcomes) <= {"OK", "EMAIL_TAKEN"}
        after = await users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=[ada.id, bob.id]))
        assert len({user.email for user in after.users}) == 2


async def test_one_of_20_updates_with_one_etag_wins(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    user = await users.CreateUser(create_user_request())

    outcomes = await outcomes_of(
        users.UpdateUser(users_pb.UpdateUserRequest(id=user.id, display_name=f"Ada {number}", etag=user.etag))
        for number in range(20)
    )

    assert outcomes == {"OK": 1, "ETAG_MISMATCH": 19}
    assert sequences_in(users_database) == {user.id: [1, 2]}


async def test_20_updates_without_an_etag_all_take_effect(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    user = await users.CreateUser(create_user_request())

    outcomes = await outcomes_of(
        users.UpdateUser(users_pb.UpdateUserRequest(id=user.id, display_name=f"Ada {number}")) for number in range(20)
    )

    assert outcomes == {"OK": 20}
    assert sequences_in(users_database) == {user.id: list(range(1, 22))}


async def test_one_of_10_status_changes_with_one_etag_wins(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    request = orders_pb.UpdateOrderStatusRequest(id=order.id, status=CONFIRMED, etag=order.etag)

    outcomes = await outcomes_of(orders.UpdateOrderStatus(request) for _ in range(10))

    assert outcomes == {"OK": 1, "ETAG_MISMATCH": 9}


@pytest.mark.parametrize("attempt", range(5))
async def test_a_history_is_legal_whichever_writer_wins(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User, attempt: int
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    steps = [
        orders_pb.UpdateOrderStatusRequest(id=order.id, status=status) for status in (CONFIRMED, PROCESSING, SHIPPED)
    ] * 3
    cancel = orders_pb.CancelOrderRequest(id=order.id)
    calls = [orders.UpdateOrderStatus(step) for step in steps]
    calls[attempt:attempt] = [orders.CancelOrder(cancel), orders.CancelOrder(cancel)]

    outcomes = await outcomes_of(calls)

    assert set(outcomes) <= {"OK", "INVALID_STATUS_TRANSITION"}
    await require_legal_history(orders, order.id)
    history = (await orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order.id))).events
    assert sequences_in(orders_database) == {order.id: list(range(1, len(history) + 1))}


async def require_legal_history(orders: OrderServiceAsyncStub, order_id: str) -> None:
    """Return if the entries of the history follow one another, the last one being the order's status."""
    order = await orders.GetOrder(orders_pb.GetOrderRequest(id=order_id))
    events = (await orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order_id))).events
    assert events[0].from_status == order_pb2.ORDER_STATUS_UNSPECIFIED
    for before, after in itertools.pairwise(events):
        assert after.from_status == before.to_status
    assert events[-1].to_status == order.status
    assert order.etag == f"v{len(events)}"


async def outcomes_of(calls: Iterable[Awaitable[Message]]) -> Counter[str]:
    """Return how often each reason was answered, OK among them."""

    async def outcome(call: Awaitable[Message]) -> str:
        try:
            await call
        except aio.AioRpcError as error:
            return refusal_from(error).reason
        return "OK"

    return Counter(await asyncio.gather(*(outcome(call) for call in calls)))


def sequences_in(database: TestDatabase) -> dict[str, list[int]]:
    """Return the sequences of every resource's events, in the order of publication."""
    rows = database.query("SELECT subject::text, array_agg(sequence ORDER BY position) FROM outbox GROUP BY subject")
    return dict(rows)
