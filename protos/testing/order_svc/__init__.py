"""The order service in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from shop.order.v1.order_pb2 import ORDER_STATUS_UNSPECIFIED
from shop.order.v1.order_pb2 import OrderStatus as OrderStatusMessage
from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server

from order_svc.errors import AmountOutOfRange, CurrencyMismatch, InvalidStatusTransition
from order_svc.model import NOBODY, PRICE_LIMIT, Actor, OrderStatus, allowed_transitions
from order_svc.rpc import OrderServicer, order_watch_hub
from protos.testing.feed import Watching
from protos.testing.order_svc.orders import OrdersInMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chassis.errors import DomainError
    from protos.testing.shop import Shop


def serve(shop: Shop) -> None:
    """Serve OrderService."""
    orders = shop.part(OrdersInMemory)
    hub = order_watch_hub(orders.feed, cast("Any", Watching()))
    shop.serve(add_OrderServiceServicer_to_server, OrderServicer(cast("Any", orders), hub, shop.clock), streams=hub)


def _in_another_status(request: Any) -> InvalidStatusTransition:
    """Return the refusal of the status that the request wants; a cancellation names none."""
    named = OrderStatusMessage.Name(getattr(request, "status", ORDER_STATUS_UNSPECIFIED)).removeprefix("ORDER_STATUS_")
    wanted = OrderStatus(named) if named in OrderStatus.__members__ else OrderStatus.CANCELLED
    current = OrderStatus.PENDING if wanted is OrderStatus.DELIVERED else OrderStatus.DELIVERED
    allowed = allowed_transitions(current, by=Actor.STAFF)
    order_id = UUID(getattr(request, "id", "") or NOBODY.hex)
    return InvalidStatusTransition(order_id, current=current, wanted=wanted, allowed=allowed)


def _in_another_currency(request: Any) -> CurrencyMismatch:
    expected = getattr(request, "currency_code", "") or "EUR"
    return CurrencyMismatch("items[0].unitPrice.currencyCode", expected=expected)


def _too_dear(_request: Any) -> AmountOutOfRange:
    return AmountOutOfRange("items[0].unitPrice", limit=f"{PRICE_LIMIT:f}")


REFUSALS: Final[Mapping[type[DomainError], Callable[[Any], DomainError]]] = {
    AmountOutOfRange: _too_dear,
    CurrencyMismatch: _in_another_currency,
    InvalidStatusTransition: _in_another_status,
}
"""For ShopServer.refuse(): makes a refusal of an order whose details the request may lack."""
