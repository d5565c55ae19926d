"""Every write of orders to a database that takes none says so, and is done once it takes them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import plain_channel
from tests.integration.databases import fresh_database
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service
from tests.integration.read_only_writes import require_refused_while_read_only
from tests.services.order_svc.placing import create_order_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shop.user.v1.user_pb2 import User

    from devstack.postgres import PostgresServer


async def test_writes_to_a_read_only_database_are_unavailable_and_come_back_without_a_restart(
    postgres: PostgresServer, users_address: str, buyer: User
) -> None:
    with fresh_database(postgres, "order_svc") as rows:
        async with (
            order_service(database_settings(rows.url), users=users_address) as address,
            plain_channel(address) as channel,
        ):
            orders = OrderServiceStub(channel)
            order = await orders.CreateOrder(create_order_request(buyer.id))
            confirm = orders_pb.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED)

            read = orders_pb.GetOrderRequest(id=order.id)
            writes: dict[str, Callable[[], Awaitable[object]]] = {
                "CreateOrder": lambda: orders.CreateOrder(create_order_request(buyer.id)),
                "UpdateOrderStatus": lambda: orders.UpdateOrderStatus(confirm),
                "CancelOrder": lambda: orders.CancelOrder(orders_pb.CancelOrderRequest(id=order.id)),
            }
            await require_refused_while_read_only(rows, writes, read=lambda: orders.GetOrder(read))
