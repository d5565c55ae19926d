"""Of a deleted buyer no reason is stored, whenever it was written: before the deletion, beside it, or later."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pytest
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb

from chassis.testing import new_uuid
from order_svc.buyer_projection import KnownUser, UserState, put_users
from order_svc.consumer import erase_texts
from order_svc.model import BuyerId
from tests.integration.databases import transaction
from tests.integration.row_locks import waiting
from tests.services.order_svc.placing import create_order_request
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub
    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

CANARY: Final = "left with the neighbour of Ada Canary"
WAY: Final = [
    order_pb2.ORDER_STATUS_CONFIRMED,
    order_pb2.ORDER_STATUS_PROCESSING,
    order_pb2.ORDER_STATUS_SHIPPED,
    order_pb2.ORDER_STATUS_DELIVERED,
]
DELIVERED: Final = """
    WITH delivered AS (UPDATE orders SET status = 'DELIVERED', version = version + 1 RETURNING id, version)
    INSERT INTO order_events (id, order_id, version, from_status, to_status, reason, occurred_at)
    SELECT gen_random_uuid(), id, version, 'SHIPPED', 'DELIVERED', %s, now() FROM delivered
"""


async def an_order(orders: OrderServiceAsyncStub, buyer: User, *, steps: int) -> order_pb2.Order:
    """Return an order that has made this many steps of its way."""
    order = await orders.CreateOrder(create_order_request(buyer.id))
    for step in WAY[:steps]:
        order = await orders.UpdateOrderStatus(orders_pb.UpdateOrderStatusRequest(id=order.id, status=step))
    return order


def forget(connection: Connection, buyer: User) -> None:
    """Apply the deletion of a buyer, whose orders have all been shipped or cancelled."""
    buyer_id = BuyerId(UUID(buyer.id))
    put_users(connection, [KnownUser(id=buyer_id, state=UserState.DELETED, updated_at=datetime.now(UTC))])
    erase_texts(connection, [buyer_id])


@pytest.mark.parametrize(
    ("method", "steps"),
    [*(("UpdateOrderStatus", steps) for steps in range(4)), *(("CancelOrder", n) for n in range(3))],
)
async def test_a_reason_that_is_given_after_the_deletion_is_not_stored(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User, method: str, steps: int
) -> None:
    order = await an_order(orders, buyer, steps=steps)
    with transaction(orders_database) as connection:
        forget(connection, buyer)
    request: Message = orders_pb.CancelOrderRequest(id=order.id, reason=CANARY, request_id=new_uuid())
    if method == "UpdateOrderStatus":
        request = orders_pb.UpdateOrderStatusRequest(
            id=order.id, status=WAY[steps], reason=CANARY, request_id=new_uuid()
        )

    changed = await getattr(orders, method)(request)
    again = await getattr(orders, method)(request)

    assert changed == again
    assert changed.etag != order.etag
    for text in (str(changed), orders_database.everything()):
        assert CANARY not in text
        assert CANARY.encode().hex() not in text


async def test_a_reason_that_is_being_written_while_the_deletion_is_applied_is_erased(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User
) -> None:
    await an_order(orders, buyer, steps=3)

    def deliver(connection: Connection) -> None:
        connection.exec_driver_sql(DELIVERED, (CANARY,))

    with waiting(orders_database, lambda connection: forget(connection, buyer), behind=deliver):
        pass

    assert orders_database.query("SELECT status FROM orders") == [("DELIVERED",)]
    assert CANARY not in orders_database.everything()


async def test_a_reason_in_the_order_of_another_buyer_is_stored(
    orders: OrderServiceAsyncStub, orders_database: TestDatabase, buyer: User, users: UserServiceAsyncStub
) -> None:
    gone = await users.CreateUser(create_user_request())
    with transaction(orders_database) as connection:
        forget(connection, gone)
    order = await an_order(orders, buyer, steps=3)

    delivered = orders_pb.UpdateOrderStatusRequest(id=order.id, status=WAY[3], reason="to the neighbour")
    await orders.UpdateOrderStatus(delivered)

    history = await orders.ListOrderEvents(orders_pb.ListOrderEventsRequest(id=order.id))
    assert history.events[-1].reason == "to the neighbour"
