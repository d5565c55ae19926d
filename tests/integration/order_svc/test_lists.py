"""Lists of orders and of an order's history in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as users_pb

from chassis.testing import new_uuid, refusal_of
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub


async def test_a_history_comes_in_pages_oldest_first(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    for status in (2, 3, 4, 5):
        request = orders_pb.UpdateOrderStatusRequest(id=order.id)
        request.status = order_pb2.OrderStatus.ValueType(status)
        await orders.UpdateOrderStatus(request)

    first = await orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order.id, page_size=3))
    second = await orders.ListOrderEvents(
        orders_pb.ListOrderEventsRequest(id=order.id, page_size=3, page_token=first.next_page_token)
    )

    assert [event.to_status for event in first.events] == [1, 2, 3]
    assert [event.to_status for event in second.events] == [4, 5]
    assert not second.next_page_token


async def test_a_page_token_is_of_its_list_and_filter_only(
    orders: OrderServiceAsyncStub, users: UserServiceAsyncStub, buyer: User
) -> None:
    for _ in range(2):
        order = await orders.CreateOrder(create_order_request(buyer.id))
        await users.CreateUser(create_user_request())
    answer = await orders.ListOrders(orders_pb.ListOrdersRequest(user_id=buyer.id, page_size=1))
    token = answer.next_page_token
    assert token

    refusals = [
        await refusal_of(orders.ListOrders(orders_pb.ListOrdersRequest(page_token=token))),
        await refusal_of(orders.ListOrders(orders_pb.ListOrdersRequest(user_id=new_uuid(), page_token=token))),
        await refusal_of(orders.ListOrders(orders_pb.ListOrdersRequest(user_id=buyer.id, status=1, page_token=token))),
        await refusal_of(orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order.id, page_token=token))),
        await refusal_of(users.ListUsers(users_pb.ListUsersRequest(page_token=token))),
        await refusal_of(
            users.ListUsers(users_pb.ListUsersRequest(state=user_pb2.USER_STATE_ACTIVE, page_token=token))
        ),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1")
        assert (refusal.reason, refusal.fields) == ("INVALID_PAGE_TOKEN", ("pageToken",))
