"""An app that uses the shop."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from shop.client import FieldViolation, Login, Money, ShopError, connect, connect_sync, decimal_of, money, pages, watch
from shop.order.v1 import order_pb2
from shop.order.v1.order_pb2 import ORDER_STATUS_PENDING, Order, OrderStatus
from shop.order.v1.order_service_pb2 import (
    CreateOrderItem,
    CreateOrderRequest,
    GetOrderRequest,
    ListOrdersRequest,
    WatchOrdersRequest,
)
from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub, OrderServiceStub
from shop.user.v1.user_service_pb2 import GetUserRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub


def place(stub: OrderServiceStub, product: str, price: str) -> Order:
    item = CreateOrderItem(product_id=product, quantity=1, unit_price=money(price))
    return stub.CreateOrder(CreateOrderRequest(currency_code="EUR", items=[item]))


def total(order: Order) -> Decimal:
    return decimal_of(order.total_amount)


def refused(error: ShopError) -> list[FieldViolation]:
    return list(error.fields)


def all_orders(stub: OrderServiceStub) -> list[Order]:
    return [
        order
        for page in pages(stub.ListOrders, ListOrdersRequest(status=ORDER_STATUS_PENDING))
        for order in page.orders
    ]


async def all_orders_async(stub: OrderServiceAsyncStub) -> list[Order]:
    return [order async for page in pages(stub.ListOrders, ListOrdersRequest()) for order in page.orders]


async def follow(stub: OrderServiceAsyncStub) -> OrderStatus.ValueType:
    async for message in watch(stub.WatchOrders, WatchOrdersRequest()):
        if message.HasField("change"):
            return message.change.to_status
    raise AssertionError


def created(order: Order) -> Timestamp:
    return order.created_at


def price(amount: Money) -> int:
    return amount.units


async def main() -> None:
    async with connect("localhost:8080", token=Login("a@example.com", "pw")) as channel:
        stub = OrderServiceStub(channel)
        order = await stub.GetOrder(GetOrderRequest(id="x"))
        print(order.id, order_pb2.OrderStatus.Name(order.status))
        await follow(stub)
        await all_orders_async(stub)


def main_sync() -> None:
    try:
        with connect_sync("localhost:8080") as channel:
            user = UserServiceStub(channel).GetUser(GetUserRequest(id="x"))
            print(user.email, user.roles)
    except ShopError as error:
        print(error.code is grpc.StatusCode.NOT_FOUND, error.reason)


if __name__ == "__main__":
    asyncio.run(main())
    main_sync()
