"""Access tokens that the order service refuses, with the keys that the user service publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.order.v1 import order_service_pb2 as orders_pb

from tests.services.order_svc.placing import create_order_request
from tests.support.tokens import corpus, reasons

if TYPE_CHECKING:
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User


async def test_the_order_service_refuses_bad_tokens(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    tokens = corpus(buyer.id)
    get = orders_pb.GetOrderRequest(id=order.id)

    refused = await reasons(lambda metadata: orders.GetOrder(get, metadata=metadata), tokens)

    assert refused == dict.fromkeys(tokens, "TOKEN_INVALID")
