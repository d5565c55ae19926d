"""Every write of the product to a database that takes none says so, and is done once it takes them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import plain_channel, refusal_of
from tests.integration.databases import fresh_database, read_only
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service
from tests.integration.user_svc.inprocess import user_service
from tests.support.requests import PASSWORD, create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from devstack.postgres import PostgresServer


async def test_writes_to_a_read_only_database_are_unavailable_and_come_back_without_a_restart(
    postgres: PostgresServer,
) -> None:
    with fresh_database(postgres, "user_svc") as users_rows, fresh_database(postgres, "order_svc") as orders_rows:
        async with (
            user_service(database_settings(users_rows.url)) as users_address,
            order_service(database_settings(orders_rows.url), users=users_address) as orders_address,
            plain_channel(users_address) as to_users,
            plain_channel(orders_address) as to_orders,
        ):
            users, sessions = UserServiceStub(to_users), SessionServiceStub(to_users)
            orders = OrderServiceStub(to_orders)
            request = create_user_request()
            user = await users.CreateUser(request)
            login = sessions_pb.CreateSessionRequest(email=request.email, password=PASSWORD)
            session = await sessions.CreateSession(login)
            order = await orders.CreateOrder(create_order_request(user.id))

            writes: dict[str, Callable[[], Awaitable[object]]] = {
                "CreateUser": lambda: users.CreateUser(create_user_request()),
                "UpdateUser": lambda: users.UpdateUser(users_pb.UpdateUserRequest(id=user.id, display_name="B")),
                "CreateSession": lambda: sessions.CreateSession(login),
                "RefreshSession": lambda: sessions.RefreshSession(
                    sessions_pb.RefreshSessionRequest(refresh_token=session.refresh_token)
                ),
                "CreateOrder": lambda: orders.CreateOrder(create_order_request(user.id)),
                "UpdateOrderStatus": lambda: orders.UpdateOrderStatus(
                    orders_pb.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED)
                ),
                "CancelOrder": lambda: orders.CancelOrder(orders_pb.CancelOrderRequest(id=order.id)),
                "DeleteUser": lambda: users.DeleteUser(users_pb.DeleteUserRequest(id=user.id)),
            }
            with read_only(users_rows), read_only(orders_rows):
                refusals = {name: await refusal_of(write()) for name, write in writes.items()}
                assert await users.GetUser(users_pb.GetUserRequest(id=user.id)) == user
                assert await orders.GetOrder(orders_pb.GetOrderRequest(id=order.id)) == order
            for write in writes.values():
                await write()

    for name, refusal in refusals.items():
        assert (name, refusal.code, refusal.reason) == (name, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert (refusal.retry_after_s, refusal.retry_after_header) == (1, "1")
