"""The events of orders: made from the model, as messages of `shop.event.v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.event.v1.order_events_pb2 import OrderCancelled, OrderCreated, OrderStatusChanged

from chassis.events.cloudevents import payload_of
from chassis.events.outbox import Event
from order_svc.model import OrderStatus
from order_svc.money import to_money

if TYPE_CHECKING:
    from order_svc.model import Order


def order_created(order: Order) -> Event:
    """Return the event of a new order, with the trace of the current call."""
    total = order.total_amount
    payload = OrderCreated(
        order_id=str(order.id),
        user_id=str(order.user_id),
        amount=f"{total:f}",
        currency_code=order.currency_code,
        total=to_money(total),
    )
    return Event("order.created", order.id, order.version, payload_of(payload), order.updated_at)


def status_changed(order: Order, *, before: OrderStatus, traceparent: str) -> Event:
    """Return the event of an order's last change, made by the call with this traceparent; empty for none.

    Without the reason of a cancellation: people write names there.
    """
    is_cancelled = order.status is OrderStatus.CANCELLED
    message = OrderCancelled if is_cancelled else OrderStatusChanged
    payload = message(
        order_id=str(order.id), user_id=str(order.user_id), from_status=before.value, to_status=order.status.value
    )
    kind = "order.cancelled" if is_cancelled else "order.status_changed"
    return Event(kind, order.id, order.version, payload_of(payload), order.updated_at, traceparent)
