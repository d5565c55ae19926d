"""Whose orders a caller sees and places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from shop.order.v1 import order_service_pb2 as orders_pb

from chassis.context import Role
from chassis.testing import SIGNER, admins_token, bearer, new_uuid, refusal_of, services_token, token_of
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub


@pytest.mark.parametrize("caller", ["support", "admin", "service"])
async def test_staff_sees_all_orders_and_users_see_theirs(
    orders: OrderServiceAsyncStub, users: UserServiceAsyncStub, buyer: User, caller: str
) -> None:
    other = await users.CreateUser(create_user_request())
    own, foreign = [(await orders.CreateOrder(create_order_request(each.id))).id for each in (buyer, other)]
    support = SIGNER.token(roles=(Role.USER, Role.SUPPORT))
    staff = {"support": support, "admin": admins_token(), "service": services_token()}[caller]

    async def listed(token: str, **filters: Any) -> set[str]:
        answer = await orders.ListOrders(orders_pb.ListOrdersRequest(**filters), metadata=bearer(token))
        return {order.id for order in answer.orders}

    assert await listed(token_of(buyer.id)) == {own}
    assert await listed(token_of(buyer.id), user_id=other.id) == set()
    assert await listed(token_of(new_uuid())) == set()
    assert await listed(staff) == {own, foreign}
    assert await listed(staff, user_id=other.id) == {foreign}


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
