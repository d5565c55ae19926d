"""A write that is sent twice takes effect once, and both callers get the same answer."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from grpc import StatusCode
from pydantic import TypeAdapter
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.database import Database
from chassis.errors import RequestIdReused
from chassis.idempotency.key import IdempotencyKey
from chassis.idempotency.store import LIFETIME, ResponseCodec, sweep_forever
from chassis.idempotency.transactions import write_once
from chassis.testing import admins_token, bearer, new_uuid, plain_channel, refusal_of, token_of, until
from tests.integration.inprocess import database_settings, order_service, user_service
from tests.support.requests import create_order_request, create_user_request, order_item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub
    from sqlalchemy import Connection

    from chassis.testing import ManualClock
    from tests.integration.conftest import TestDatabase

CONFIRMED = order_pb2.ORDER_STATUS_CONFIRMED
NEW_PASSWORD = "another horse battery"


def encoded(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


async def test_a_repeated_order_is_the_first_one_again(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    request = create_order_request(buyer.id, request_id=new_uuid())
    first = await orders.CreateOrder(request)

    second = await orders.CreateOrder(request)

    assert encoded(second) == encoded(first)
    assert orders_database.query("SELECT count(*) FROM orders") == [(1,)]
    assert orders_database.query("SELECT count(*) FROM outbox") == [(1,)]


async def test_a_repetition_gets_the_first_answer_also_when_the_resource_has_changed(
    orders: OrderServiceAsyncStub, buyer: User, clock: ManualClock
) -> None:
    create = create_order_request(buyer.id, request_id=new_uuid(), items=[order_item(nanos=10_000_000)])
    created = await orders.CreateOrder(create)
    confirm = orders_pb.UpdateOrderStatusRequest(id=created.id, status=CONFIRMED, request_id=new_uuid())
    confirmed = await orders.UpdateOrderStatus(confirm)
    cancel = orders_pb.CancelOrderRequest(id=created.id, reason="no", request_id=new_uuid())
    cancelled = await orders.CancelOrder(cancel)
    clock.advance(timedelta(hours=23))

    assert encoded(await orders.CreateOrder(create)) == encoded(created)
    assert encoded(await orders.UpdateOrderStatus(confirm)) == encoded(confirmed)
    assert encoded(await orders.CancelOrder(cancel)) == encoded(cancelled)
    assert await orders.GetOrder(orders_pb.GetOrderRequest(id=created.id)) == cancelled


async def test_repeated_writes_of_a_user_get_their_first_answers(users: UserServiceAsyncStub) -> None:
    create = create_user_request(profile={"a": [1, 2.5, {}], "z": None}, request_id=new_uuid())
    created = await users.CreateUser(create)
    update = users_pb.UpdateUserRequest(id=created.id, display_name="B", etag=created.etag, request_id=new_uuid())
    updated = await users.UpdateUser(update)
    as_user = bearer(token_of(created.id))
    change = users_pb.ChangePasswordRequest(
        id=created.id, current_password=create.password, new_password=NEW_PASSWORD, request_id=new_uuid()
    )
    changed = await users.ChangePassword(change, metadata=as_user)

    assert encoded(await users.CreateUser(create)) == encoded(created)
    assert encoded(await users.UpdateUser(update)) == encoded(updated)
    assert encoded(await users.ChangePassword(change, metadata=as_user)) == encoded(changed)
    assert await users.GetUser(users_pb.GetUserRequest(id=created.id)) == changed


async def test_a_repeated_deletion_succeeds(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    user = await users.CreateUser(create_user_request())
    delete = users_pb.DeleteUserRequest(id=user.id, etag=user.etag, request_id=new_uuid())
    await users.DeleteUser(delete)

    await users.DeleteUser(delete)

    assert users_database.query("SELECT count(*) FROM outbox WHERE type = 'user.deleted'") == [(1,)]


async def test_a_request_id_serves_one_request_only(orders: OrderServiceAsyncStub, buyer: User) -> None:
    request_id = new_uuid()
    await orders.CreateOrder(create_order_request(buyer.id, request_id=request_id))

    other = create_order_request(buyer.id, request_id=request_id, currency_code="USD")
    refusal = await refusal_of(orders.CreateOrder(other))

    assert (refusal.code, refusal.domain) == (StatusCode.ALREADY_EXISTS, "shop.system.v1")
    assert (refusal.reason, refusal.metadata) == ("REQUEST_ID_REUSED", {"requestId": request_id})


async def test_a_refused_reuse_does_not_harm_the_first_request(orders: OrderServiceAsyncStub, buyer: User) -> None:
    request = create_order_request(buyer.id, request_id=new_uuid())
    first = await orders.CreateOrder(request)
    await refusal_of(
        orders.CreateOrder(
            create_order_request(buyer.id, request_id=request.request_id, items=[order_item(quantity=2)])
        )
    )

    assert encoded(await orders.CreateOrder(request)) == encoded(first)


async def test_a_request_that_differs_in_the_password_only_is_another_request(users: UserServiceAsyncStub) -> None:
    create = create_user_request(request_id=new_uuid())
    user = await users.CreateUser(create)
    as_user = bearer(token_of(user.id))
    change = users_pb.ChangePasswordRequest(
        id=user.id, current_password=create.password, new_password=NEW_PASSWORD, request_id=new_uuid()
    )
    await users.ChangePassword(change, metadata=as_user)
    create.password = "a different password"
    change.new_password = "a different password"

    refusals = [
        await refusal_of(users.CreateUser(create)),
        await refusal_of(users.ChangePassword(change, metadata=as_user)),
    ]

    assert [each.reason for each in refusals] == ["REQUEST_ID_REUSED"] * 2
    assert [each.metadata["requestId"] for each in refusals] == [create.request_id, change.request_id]


async def test_one_request_id_serves_one_request_of_every_method(orders: OrderServiceAsyncStub, buyer: User) -> None:
    request_id = new_uuid()
    order = await orders.CreateOrder(create_order_request(buyer.id, request_id=request_id))

    confirmed = await orders.UpdateOrderStatus(
        orders_pb.UpdateOrderStatusRequest(id=order.id, status=CONFIRMED, request_id=request_id)
    )
    cancelled = await orders.CancelOrder(orders_pb.CancelOrderRequest(id=order.id, request_id=request_id))

    assert [confirmed.status, cancelled.status] == [CONFIRMED, order_pb2.ORDER_STATUS_CANCELLED]


async def test_after_24_hours_the_request_id_is_free(
    orders: OrderServiceAsyncStub, buyer: User, clock: ManualClock
) -> None:
    request = create_order_request(buyer.id, request_id=new_uuid())
    first = await orders.CreateOrder(request)
    clock.advance(LIFETIME)
    assert (await orders.CreateOrder(request)).id == first.id
    clock.advance(timedelta(seconds=1))
    other = create_order_request(buyer.id, request_id=request.request_id, currency_code="USD")

    second = await orders.CreateOrder(other)

    assert second.id != first.id
    assert encoded(await orders.CreateOrder(other)) == encoded(second)
    assert (await refusal_of(orders.CreateOrder(request))).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("header", ["idempotency-key", "x-request-id"])
async def test_a_header_is_the_key_of_a_request_without_an_id(
    orders: OrderServiceAsyncStub, buyer: User, header: str
) -> None:
    metadata = ((header, new_uuid()),)

    first = await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata)
    again = await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata)
    other = await refusal_of(orders.CreateOrder(create_order_request(buyer.id, currency_code="USD"), metadata=metadata))

    assert encoded(again) == encoded(first)
    assert (other.reason, other.metadata) == ("REQUEST_ID_REUSED", {"requestId": metadata[0][1]})


async def test_the_callers_key_has_precedence_over_the_edges(orders: OrderServiceAsyncStub, buyer: User) -> None:
    chosen, header, edge = new_uuid(), new_uuid(), new_uuid()
    by_field = create_order_request(buyer.id, request_id=chosen)
    metadata = (("idempotency-key", header), ("x-request-id", edge))

    first = await orders.CreateOrder(by_field, metadata=metadata)
    second = await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata)
    third = await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata[1:])

    assert len({first.id, second.id, third.id}) == 3
    assert (await orders.CreateOrder(by_field)).id == first.id
    assert (await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata)).id == second.id


async def test_an_idempotency_key_must_be_a_uuid(orders: OrderServiceAsyncStub, buyer: User) -> None:
    metadata = (("idempotency-key", "order-1"),)

    refusal = await refusal_of(orders.CreateOrder(create_order_request(buyer.id), metadata=metadata))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert refusal.fields == ("idempotency-key",)


async def test_without_any_id_every_call_is_a_request_of_its_own(orders: OrderServiceAsyncStub, buyer: User) -> None:
    metadata = (("x-request-id", "not the edge's"),)

    placed = [await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata) for _ in range(2)]

    assert placed[0].id != placed[1].id


async def test_a_write_that_failed_leaves_its_request_id_unused(users: UserServiceAsyncStub) -> None:
    await users.CreateUser(create_user_request(email="ada@example.com"))
    request_id = new_uuid()
    refusal = await refusal_of(users.CreateUser(create_user_request(email="ada@example.com", request_id=request_id)))
    assert refusal.reason == "EMAIL_TAKEN"

    created = await users.CreateUser(create_user_request(email="bob@example.com", request_id=request_id))

    assert created.email == "bob@example.com"


async def test_a_refused_change_leaves_its_request_id_unused(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    ship = orders_pb.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_SHIPPED, request_id=new_uuid())
    refused = await refusal_of(orders.UpdateOrderStatus(ship))

    assert refused.reason == "INVALID_STATUS_TRANSITION"
    assert orders_database.query("SELECT 1 FROM idempotency_keys WHERE request_id = %s", ship.request_id) == []
    for status in (CONFIRMED, order_pb2.ORDER_STATUS_PROCESSING):
        await orders.UpdateOrderStatus(orders_pb.UpdateOrderStatusRequest(id=order.id, status=status))
    assert (await orders.UpdateOrderStatus(ship)).status == order_pb2.ORDER_STATUS_SHIPPED


async def test_a_repeated_order_is_answered_while_the_user_service_is_down(
    users_database: TestDatabase, orders_database: TestDatabase
) -> None:
    async with contextlib.AsyncExitStack() as rest:
        async with user_service(database_settings(users_database.url)) as users_address:
            settings = database_settings(orders_database.url)
            orders_address = await rest.enter_async_context(order_service(settings, users=users_address))
            stub = OrderServiceStub(await rest.enter_async_context(plain_channel(orders_address)))
            user_id = await create_user(users_address)
            request = create_order_request(user_id, request_id=new_uuid())
            first = await stub.CreateOrder(request)

        again = await stub.CreateOrder(request)
        new = await refusal_of(stub.CreateOrder(create_order_request(user_id, request_id=new_uuid())))
        reused = await refusal_of(
            stub.CreateOrder(create_order_request(user_id, request_id=request.request_id, currency_code="USD"))
        )

    assert encoded(again) == encoded(first)
    assert new.reason == "USER_SERVICE_UNAVAILABLE"
    assert reused.reason == "REQUEST_ID_REUSED"


async def test_40_callers_of_2_replicas_with_one_request_id_place_one_order(
    users_address: str, orders_database: TestDatabase
) -> None:
    settings = database_settings(orders_database.url)
    async with (
        order_service(settings, users=users_address) as one,
        order_service(settings, users=users_address) as other,
        plain_channel(one) as channel_to_one,
        plain_channel(other) as channel_to_other,
    ):
        as_one_caller = bearer(admins_token())
        stubs = [OrderServiceStub(channel_to_one), OrderServiceStub(channel_to_other)]
        request = create_order_request(await create_user(users_address), request_id=new_uuid())

        answers = await asyncio.gather(
            *(stubs[number % 2].CreateOrder(request, metadata=as_one_caller) for number in range(40))
        )

    assert len({encoded(answer) for answer in answers}) == 1
    for table in ("orders", "order_events", "outbox", "idempotency_keys"):
        assert orders_database.query(f"SELECT count(*) FROM {table}") == [(1,)]


async def test_40_callers_with_one_request_id_create_one_user(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    request = create_user_request(request_id=new_uuid())

    answers = await asyncio.gather(*(users.CreateUser(request) for _ in range(40)))

    assert len({encoded(answer) for answer in answers}) == 1
    for table in ("users", "outbox", "idempotency_keys"):
        assert users_database.query(f"SELECT count(*) FROM {table}") == [(1,)]


async def test_20_callers_with_one_request_id_change_the_password_once(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    create = create_user_request()
    user = await users.CreateUser(create)
    as_user = bearer(token_of(user.id))
    change = users_pb.ChangePasswordRequest(
        id=user.id, current_password=create.password, new_password=NEW_PASSWORD, request_id=new_uuid()
    )

    answers = await asyncio.gather(*(users.ChangePassword(change, metadata=as_user) for _ in range(20)))

    assert len({encoded(answer) for answer in answers}) == 1
    assert users_database.query("SELECT max(version) FROM users") == [(2,)]


# The keys themselves, below the wire.

TEXT = ResponseCodec.of(TypeAdapter(str), resource_id=lambda _: uuid4())


@pytest.fixture
async def database(orders_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(database_settings(orders_database.url), name="test")
    yield database
    await database.close()


async def test_callers_do_not_share_request_ids(database: Database, clock: ManualClock) -> None:
    request_id = uuid4()
    of_ada = IdempotencyKey("ada", "/method", request_id, b"content", clock.now())
    of_bob = IdempotencyKey("bob", "/method", request_id, b"other content", clock.now())

    assert await database.transaction(remembering(of_ada, "for Ada")) == "for Ada"
    assert await database.transaction(remembering(of_bob, "for Bob")) == "for Bob"
    assert await database.transaction(remembering(of_ada, "something else")) == "for Ada"


async def test_a_request_id_is_reused_by_content_and_not_by_answer(database: Database, clock: ManualClock) -> None:
    key = IdempotencyKey("ada", "/method", uuid4(), b"content", clock.now())
    await database.transaction(remembering(key, "x"))
    other = replace(key, fingerprint=b"other")

    with pytest.raises(RequestIdReused):
        await database.transaction(remembering(other, "x"))


async def test_an_action_that_fails_leaves_no_key(
    database: Database, orders_database: TestDatabase, clock: ManualClock
) -> None:
    key = IdempotencyKey("ada", "/method", uuid4(), b"content", clock.now())

    def fail() -> str:
        raise LookupError

    def attempt(connection: Connection) -> str:
        return write_once(connection, key, fail, codec=TEXT)

    with pytest.raises(LookupError):
        await database.transaction(attempt)

    assert orders_database.query("SELECT count(*) FROM idempotency_keys") == [(0,)]


async def test_the_sweep_removes_expired_keys_and_no_others(
    database: Database, orders_database: TestDatabase, clock: ManualClock
) -> None:
    expired = IdempotencyKey("ada", "/method", uuid4(), b"content", clock.now())
    kept = IdempotencyKey("ada", "/method", uuid4(), b"content", clock.now())
    await database.transaction(remembering(expired, "x"))
    clock.advance(timedelta(seconds=1))
    await database.transaction(remembering(replace(kept, received_at=clock.now()), "x"))
    clock.advance(LIFETIME)

    sweep = asyncio.create_task(sweep_forever(database, clock, every_s=0.01))
    await until(is_in_database({kept.request_id}, orders_database))
    sweep.cancel()

    assert await database.transaction(remembering(replace(kept, received_at=clock.now()), "y")) == "x"


async def test_the_sweep_removes_more_than_one_batch(
    database: Database, orders_database: TestDatabase, clock: ManualClock
) -> None:
    orders_database.query(
        "INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, created_at)"
        " SELECT '', '/method', gen_random_uuid(), '', %s FROM generate_series(1, 2500)",
        clock.now() - LIFETIME - timedelta(seconds=1),
    )

    sweep = asyncio.create_task(sweep_forever(database, clock, every_s=0.01))
    await until(is_in_database(set(), orders_database))
    sweep.cancel()


def remembering(key: IdempotencyKey, result: str) -> Callable[[Connection], str]:
    """Return work that has this result, unless it is a repetition."""

    def work(connection: Connection) -> str:
        return write_once(connection, key, lambda: result, codec=TEXT)

    return work


def is_in_database(wanted: set[UUID], database: TestDatabase) -> Callable[[], Awaitable[bool]]:
    """Return the question whether these are the request ids that are kept."""

    async def ask() -> bool:
        rows = await asyncio.to_thread(database.query, "SELECT request_id FROM idempotency_keys")
        return {request_id for (request_id,) in rows} == wanted

    return ask


async def create_user(address: str) -> str:
    """Create a user who may order; return the id."""
    async with plain_channel(address) as channel:
        return (await UserServiceStub(channel).CreateUser(create_user_request())).id
