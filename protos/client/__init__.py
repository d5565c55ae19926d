"""The client of the shop, for the typed stubs below `shop`: in the wheel this package is `shop.client`.

    from shop.client import Login, ShopError, connect_sync
    from shop.order.v1.order_service_pb2 import GetOrderRequest
    from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

    with connect_sync("localhost:8080", token=Login("ada@example.com", password)) as channel:
        try:
            order = OrderServiceStub(channel).GetOrder(GetOrderRequest(id=order_id))
        except ShopError as error:
            print(error.reason, error.message)

Everything here serves both kinds of stubs: those of grpc and those of grpc.aio.
"""

from chassis.client.policy import CallPolicy
from protos.client.connecting import connect, connect_sync
from protos.client.credentials import Login
from protos.client.errors import FieldViolation, ShopError
from protos.client.money import Money, decimal_of, money
from protos.client.paging import pages
from protos.client.watching import watch

__all__ = [
    "CallPolicy",
    "FieldViolation",
    "Login",
    "Money",
    "ShopError",
    "connect",
    "connect_sync",
    "decimal_of",
    "money",
    "pages",
    "watch",
]
