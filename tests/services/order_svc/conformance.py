"""Calls of the order service that the contract does not say: its state machine, filters, streams, buyers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders
from shop.user.v1 import user_service_pb2 as users

from chassis.context import Role
from tests.integration.conformance.worlds import new_uuid, settled
from tests.services.order_svc.placing import create_order_request, order_item

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from tests.integration.conformance.worlds import Person, World

_STATUSES: Final[Mapping[str, Any]] = {
    value.name.removeprefix("ORDER_STATUS_"): value.number for value in order_pb2.OrderStatus.DESCRIPTOR.values
}

NOT_PROVOKED: Final = {"USER_SERVICE_UNAVAILABLE"}
EVENTUAL: Final = {"orderCount"}


async def place(world: World, buyer: Person) -> Any:
    return await world.call("CreateOrder", create_order_request(buyer.id), token=buyer.token)


def of_an_order(make: Callable[[str], Message]) -> Callable[[World, Person], Awaitable[Message]]:
    async def request(world: World, buyer: Person) -> Message:
        return make((await place(world, buyer)).id)

    return request


def of_a_buyer(make: Callable[[str], Message]) -> Callable[[World, Person], Awaitable[Message]]:
    async def request(_world: World, buyer: Person) -> Message:
        return make(buyer.id)

    return request


REQUESTS: Final = {
    "CreateOrder": of_a_buyer(create_order_request),
    "GetOrder": of_an_order(lambda order_id: orders.GetOrderRequest(id=order_id)),
    "ListOrders": of_a_buyer(lambda user_id: orders.ListOrdersRequest(user_id=user_id)),
    "UpdateOrderStatus": of_an_order(
        lambda order_id: orders.UpdateOrderStatusRequest(id=order_id, status=order_pb2.ORDER_STATUS_CONFIRMED)
    ),
    "CancelOrder": of_an_order(lambda order_id: orders.CancelOrderRequest(id=order_id, reason="changed my mind")),
    "ListOrderEvents": of_an_order(lambda order_id: orders.ListOrderEventsRequest(id=order_id)),
    "WatchOrders": of_a_buyer(lambda user_id: orders.WatchOrdersRequest(user_id=user_id)),
}

_PRICES: Final = [{"units": 0}, {"units": -1}, {"units": 1, "nanos": 1}, {"units": 10**12}, {"nanos": 2 * 10**9}]
ODD_VALUES: Final = {
    "shop.order.v1.CreateOrderItem": [
        [],
        [order_item()] * 101,
        *[[order_item(unit_price=price)] for price in _PRICES],
        *[[order_item(unit_price={"units": 1, "currency_code": code})] for code in ("EUR", "USD", "eur", "E")],
        *[[order_item(quantity=quantity)] for quantity in (0, -1, 10_000, 10_001)],
        *[[order_item(product_id=product)] for product in ("", " ", "p" * 64, "p" * 65, "\0")],
        *[[order_item(name=name)] for name in ("", " ", "n" * 255, "n" * 256)],
        [order_item(units=999_999_999_999, quantity=10_000)],
        [{"product_id": "tea"}],
    ]
}


def _more_of_it(request: Any) -> None:
    request.items[0].quantity += 1


def _for_another_reason(request: Any) -> None:
    request.reason = "something else"


CHANGES: Final = {
    "CreateOrder": _more_of_it,
    "UpdateOrderStatus": _for_another_reason,
    "CancelOrder": _for_another_reason,
}


async def transitions(world: World) -> None:
    """Change an order from each status to each, as staff and as its owner."""
    buyer = await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    path = ["CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED"]
    for reached in range(len(path) + 1):
        for wanted, status in _STATUSES.items():
            order = await place(world, buyer)
            for step in path[:reached]:
                request = orders.UpdateOrderStatusRequest(id=order.id, status=_STATUSES[step])
                await world.call("UpdateOrderStatus", request, token=staff)
            change = orders.UpdateOrderStatusRequest(id=order.id, status=status, reason="why")
            await world.call("UpdateOrderStatus", change, token=staff, note=f"after {path[:reached]} to {wanted}")
            await world.call("CancelOrder", orders.CancelOrderRequest(id=order.id), token=buyer.token)
            await world.call("CancelOrder", orders.CancelOrderRequest(id=order.id), token=staff)
            await world.call("ListOrderEvents", orders.ListOrderEventsRequest(id=order.id), token=buyer.token)


async def etags_of_an_order(world: World) -> None:
    """Change one order again and again, with the etag of each version, and by each way."""
    buyer = await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    order = await place(world, buyer)
    confirm = orders.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED)
    cancel = orders.CancelOrderRequest(id=order.id)
    for rpc, token, request in (("UpdateOrderStatus", staff, confirm), ("CancelOrder", buyer.token, cancel)):
        for etag in ("v3", "v2", "v1"):
            request.etag = etag
            await world.call(rpc, request, token=token, note=f"{rpc} etag {etag}")


async def buyers(world: World) -> None:
    """Order for users who may not order, for the caller, and as a caller who is no user."""
    ada, gone = await world.person(), await world.person(name="bob")
    admin = world.token(Role.USER, Role.ADMIN)
    await world.call("DeleteUser", users.DeleteUserRequest(id=gone.id), token=admin)
    for user_id, token in (
        (gone.id, admin),
        (new_uuid(), admin),
        ("", ada.token),
        ("", world.token(Role.SERVICE)),
    ):
        await world.call("CreateOrder", create_order_request(user_id), token=token)


async def pages_of_orders(world: World) -> None:
    """Read lists of orders with each filter, as owner and as staff, and with the tokens of other lists."""
    buyer, other = await world.person(), await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    for number in range(5):
        await settled()
        order = await place(world, buyer if number != 2 else other)
    for step in ("CONFIRMED", "PROCESSING", "SHIPPED"):
        change = orders.UpdateOrderStatusRequest(id=order.id, status=_STATUSES[step], reason=step)
        await world.call("UpdateOrderStatus", change, token=staff)
    lists: list[tuple[str, str, Any]] = [
        ("ListOrders", buyer.token, orders.ListOrdersRequest()),
        ("ListOrders", staff, orders.ListOrdersRequest()),
        ("ListOrders", staff, orders.ListOrdersRequest(user_id=other.id)),
        ("ListOrders", buyer.token, orders.ListOrdersRequest(user_id=other.id)),
        ("ListOrders", staff, orders.ListOrdersRequest(status=order_pb2.ORDER_STATUS_PENDING)),
        ("ListOrderEvents", buyer.token, orders.ListOrderEventsRequest(id=order.id)),
    ]
    tokens: list[str] = []
    for rpc, token, request in lists:
        for size in (1, 2, 0):
            tokens += await world.read_pages(rpc, request, token=token, size=size)
    for rpc, token, request in lists:
        for page_token in (*tokens[:3], *tokens[-3:]):
            request.page_token = page_token
            await world.call(rpc, request, token=token, note=f"{rpc} with the token of some list")


async def watching(world: World) -> None:
    """Watch orders: all, one's own, another user's, and after a token."""
    ada, bob = await world.person(), await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    streams = {
        "staff": world.stream("WatchOrders", orders.WatchOrdersRequest(), token=staff),
        "ada": world.stream("WatchOrders", orders.WatchOrdersRequest(), token=ada.token),
        "staff, of bob": world.stream("WatchOrders", orders.WatchOrdersRequest(user_id=bob.id), token=staff),
        "ada, of bob": world.stream("WatchOrders", orders.WatchOrdersRequest(user_id=bob.id), token=ada.token),
    }
    first = {name: await stream.read() for name, stream in streams.items()}
    for buyer in (ada, bob, ada):
        order = await place(world, buyer)
    confirm = orders.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED)
    await world.call("UpdateOrderStatus", confirm, token=staff)
    await world.call("CancelOrder", orders.CancelOrderRequest(id=order.id), token=ada.token)
    expected = {"staff": 5, "ada": 4, "staff, of bob": 1, "ada, of bob": 0}
    resumed = {
        f"{name}, again": world.stream(
            "WatchOrders", orders.WatchOrdersRequest(resume_token=first[name].resume_token), token=token
        )
        for name, token in (("staff", staff), ("ada", ada.token))
    }
    for name, stream in resumed.items():
        await stream.read()
        expected[name] = expected[name.removesuffix(", again")]
    for name, stream in {**streams, **resumed}.items():
        changes = [change async for change in _changes(stream, expected[name])]
        world.record(f"watch of {name}", [_shown(each) for each in changes])
        stream.cancel()
    for token in (new_uuid(), "none"):
        await world.call("WatchOrders", orders.WatchOrdersRequest(resume_token=token), token=staff)


async def expiring(world: World) -> None:
    """Watch until the access token expires: the last message has the error that is also the call's status."""
    stream = world.stream("WatchOrders", orders.WatchOrdersRequest(), token=world.short_token())
    await world.read_to_end(stream, note="watch of a token that expires")


async def _changes(stream: Any, count: int) -> Any:
    while count:
        message = await stream.read()
        if message.HasField("change"):
            count -= 1
            yield message.change


def _shown(change: Any) -> Any:
    return [change.order_id, change.user_id, change.from_status, change.to_status, change.etag]


SCENARIOS: Final = {
    each.__name__: each for each in (transitions, etags_of_an_order, buyers, pages_of_orders, watching, expiring)
}
