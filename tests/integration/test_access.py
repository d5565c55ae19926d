"""Access to the services: every rpc by every kind of caller, and no access to other users' resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc import StatusCode, aio
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.context import Role
from chassis.server import contract
from chassis.testing import (
    SIGNER,
    admins_token,
    bearer,
    new_uuid,
    plain_channel,
    refusal_from,
    refusal_of,
    services_token,
    token_of,
)
from tests.support.access_table import CALLERS, FOREIGN, NOTHING, REQUESTS, Subject, expected
from tests.support.requests import PASSWORD, create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

# Of the users' own resources; e2e/test_access.py has every rpc of the contract.
METHODS: dict[str, MethodDescriptor] = {
    method.full_name: method
    for service in contract.service_names()
    for method in descriptor_pool.Default().FindServiceByName(service).methods
    if method.full_name in REQUESTS
}


@dataclass(frozen=True, slots=True)
class World:
    """A user with an order and a session, and both services.

    Attributes:
        users: a channel without a token to the user service.
        orders: a channel without a token to the order service.
        subject: whose things the calls are about.
    """

    users: aio.Channel
    orders: aio.Channel
    subject: Subject

    @property
    def owner(self) -> User:
        return self.subject.owner

    @property
    def order(self) -> order_pb2.Order:
        return self.subject.order

    async def call(self, method: str, request: Message, *, token: str) -> Message:
        """Make a call with the token; an empty one is anonymous."""
        service, _, name = method.rpartition(".")
        channel = self.orders if service.startswith("shop.order.") else self.users
        invoke = (channel.unary_stream if METHODS[method].server_streaming else channel.unary_unary)(
            f"/{service}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(METHODS[method].output_type).FromString,
        )
        call: Any = invoke(request, metadata=bearer(token) if token else ())
        return await (_first_news(call) if METHODS[method].server_streaming else call)

    def token(self, caller: str) -> str:
        tokens = {
            "anonymous": "",
            "other": token_of(new_uuid()),
            "owner": token_of(self.owner.id),
            "support": SIGNER.token(roles=(Role.USER, Role.SUPPORT)),
            "admin": admins_token(),
            "service": services_token(),
        }
        return tokens[caller]


async def _first_news(stream: Any) -> Message:
    """Return the message after the first heartbeat: a change or, without one, another heartbeat, which is empty."""
    await stream.read()
    message: Message = await stream.read()
    stream.cancel()
    message.ClearField("resume_token")
    return message


@dataclass(frozen=True, slots=True)
class Worlds:
    """Makes worlds."""

    users: aio.Channel
    orders: aio.Channel

    async def new(self) -> World:
        owner = await UserServiceStub(self.users).CreateUser(create_user_request())
        login = sessions_pb.CreateSessionRequest(email=owner.email, password=PASSWORD)
        session = await SessionServiceStub(self.users).CreateSession(login)
        order = await OrderServiceStub(self.orders).CreateOrder(
            create_order_request(owner.id), metadata=bearer(session.access_token)
        )
        return World(self.users, self.orders, Subject(owner, order, session))


@pytest.fixture
async def worlds(users_address: str, orders_address: str) -> AsyncIterator[Worlds]:
    async with plain_channel(users_address, token="") as users, plain_channel(orders_address, token="") as orders:
        yield Worlds(users, orders)


@pytest.mark.parametrize("method", METHODS)
async def test_an_rpc_admits_the_callers_of_the_contract(
    worlds: Worlds, users_database: TestDatabase, orders_database: TestDatabase, method: str
) -> None:
    outcomes: dict[str, str] = {}

    for caller in CALLERS:
        world = await worlds.new()
        before = users_database.everything() + orders_database.everything()
        outcomes[caller] = outcome = await outcome_of(world, method, caller)
        if outcome != "OK":
            assert users_database.everything() + orders_database.everything() == before

    assert outcomes == {caller: expected(method, caller) for caller in CALLERS}


async def outcome_of(world: World, method: str, caller: str) -> str:
    """Return the reason of the refusal, NOTHING, or OK."""
    try:
        answer = await world.call(method, REQUESTS[method](world.subject), token=world.token(caller))
    except aio.AioRpcError as error:
        refusal = refusal_from(error)
        codes = {"TOKEN_INVALID": StatusCode.UNAUTHENTICATED, "ROLE_REQUIRED": StatusCode.PERMISSION_DENIED}
        assert refusal.code is codes.get(refusal.reason, refusal.code)
        return refusal.reason
    is_foreign = expected(method, caller) == NOTHING
    return NOTHING if is_foreign and not answer.ByteSize() else "OK"


@pytest.mark.parametrize("method", FOREIGN)
async def test_another_users_resource_is_answered_as_a_missing_one(worlds: Worlds, method: str) -> None:
    world = await worlds.new()
    foreign = REQUESTS[method](world.subject)
    absent = REQUESTS[method](world.subject)
    field = "id" if "id" in foreign.DESCRIPTOR.fields_by_name else "user_id"
    owned, made_up = getattr(foreign, field), new_uuid()
    setattr(absent, field, made_up)
    token = world.token("other")

    of_foreign = await bytes_of(world.call(method, foreign, token=token))
    of_absent = await bytes_of(world.call(method, absent, token=token))

    assert of_foreign.replace(owned.encode(), b"<id>") == of_absent.replace(made_up.encode(), b"<id>")


async def bytes_of(call: Any) -> bytes:
    """Return everything that the caller gets to see."""
    try:
        return bytes((await call).SerializeToString())
    except aio.AioRpcError as error:
        return repr((error.code(), error.details(), sorted(error.trailing_metadata() or ()))).encode()


@pytest.mark.parametrize("caller", ["support", "admin", "service"])
async def test_staff_sees_all_orders_and_users_see_theirs(worlds: Worlds, caller: str) -> None:
    one, other = await worlds.new(), await worlds.new()
    method = "shop.order.v1.OrderService.ListOrders"

    async def listed(token: str, **filters: Any) -> set[str]:
        answer: Any = await one.call(method, orders_pb.ListOrdersRequest(**filters), token=token)
        return {order.id for order in answer.orders}

    assert await listed(one.token("owner")) == {one.order.id}
    assert await listed(one.token("owner"), user_id=other.owner.id) == set()
    assert await listed(one.token("other")) == set()
    assert await listed(one.token(caller)) == {one.order.id, other.order.id}
    assert await listed(one.token(caller), user_id=other.owner.id) == {other.order.id}


async def test_a_page_token_does_not_open_another_users_list(orders: OrderServiceAsyncStub, buyer: User) -> None:
    for _ in range(2):
        await orders.CreateOrder(create_order_request(buyer.id))
    first_page = await orders.ListOrders(orders_pb.ListOrdersRequest(page_size=1))
    request = orders_pb.ListOrdersRequest(page_size=1, page_token=first_page.next_page_token)

    refusal = await refusal_of(orders.ListOrders(request, metadata=bearer(token_of(new_uuid()))))

    assert refusal.reason == "INVALID_PAGE_TOKEN"


async def test_an_order_without_a_buyer_is_the_callers(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(""), metadata=bearer(token_of(buyer.id)))

    assert order.user_id == buyer.id


async def test_staff_orders_for_the_buyer_and_not_for_themselves(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))

    mine = await orders.ListOrders(orders_pb.ListOrdersRequest(), metadata=bearer(token_of(buyer.id)))

    assert order.user_id == buyer.id
    assert [each.id for each in mine.orders] == [order.id]


async def test_one_request_id_of_two_callers_is_two_requests(
    orders: OrderServiceAsyncStub, users: UserServiceAsyncStub, buyer: User
) -> None:
    other = await users.CreateUser(create_user_request())
    request = create_order_request("", request_id=new_uuid())

    of_buyer = await orders.CreateOrder(request, metadata=bearer(token_of(buyer.id)))
    of_other = await orders.CreateOrder(request, metadata=bearer(token_of(other.id)))

    assert of_buyer.id != of_other.id
    assert (of_buyer.user_id, of_other.user_id) == (buyer.id, other.id)
    assert (await orders.CreateOrder(request, metadata=bearer(token_of(buyer.id)))).id == of_buyer.id


async def test_a_request_id_of_one_caller_does_not_return_the_response_of_another(
    users: UserServiceAsyncStub, buyer: User
) -> None:
    update = users_pb.UpdateUserRequest(id=buyer.id, display_name="B", request_id=new_uuid())
    await users.UpdateUser(update, metadata=bearer(token_of(buyer.id)))

    refusal = await refusal_of(users.UpdateUser(update, metadata=bearer(token_of(new_uuid()))))

    assert refusal.reason == "USER_NOT_FOUND"


async def test_anonymous_callers_learn_nothing_about_validity(users: UserServiceAsyncStub) -> None:
    nobody = (("authorization", ""),)
    by_get = await refusal_of(users.GetUser(users_pb.GetUserRequest(id="no uuid"), metadata=nobody))
    by_list = await refusal_of(users.ListUsers(users_pb.ListUsersRequest(page_size=-1), metadata=nobody))

    assert {by_get.reason, by_list.reason} == {"TOKEN_INVALID"}


async def test_a_missing_role_is_named(users: UserServiceAsyncStub) -> None:
    request = users_pb.BatchGetUsersRequest(ids=[new_uuid()])

    refusal = await refusal_of(users.BatchGetUsers(request, metadata=bearer(token_of(new_uuid()))))

    assert (refusal.code, refusal.domain) == (StatusCode.PERMISSION_DENIED, "shop.system.v1")
    assert (refusal.reason, refusal.metadata) == ("ROLE_REQUIRED", {"roles": "ADMIN,SERVICE"})
