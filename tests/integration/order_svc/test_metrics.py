"""Each change of an order's status is counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb

from chassis.telemetry.metrics import REGISTRY
from chassis.testing import new_uuid, refusal_of
from tests.services.order_svc.placing import create_order_request

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User


def value(name: str, **labels: str) -> float:
    """Return a metric's value; 0 if there is none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0


async def test_a_change_of_status_is_counted_once_however_often_it_is_sent(
    orders: OrderServiceAsyncStub, buyer: User
) -> None:
    def placed() -> float:
        return value("shop_order_status_changes_total", from_status="NEW", to_status="PENDING")

    def cancelled() -> float:
        return value("shop_order_status_changes_total", from_status="PENDING", to_status="CANCELLED")

    before = placed(), cancelled()
    create = create_order_request(buyer.id, request_id=new_uuid())
    order = await orders.CreateOrder(create)
    await orders.CreateOrder(create)
    cancel = pb.CancelOrderRequest(id=order.id, request_id=new_uuid())
    await orders.CancelOrder(cancel)
    await orders.CancelOrder(cancel)
    await refusal_of(
        orders.UpdateOrderStatus(pb.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED))
    )

    assert (placed() - before[0], cancelled() - before[1]) == (1, 1)
