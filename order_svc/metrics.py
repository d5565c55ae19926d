"""What is counted of orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from chassis.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from order_svc.model import OrderStatus

_status_changes: Final = Counter(
    "shop_order_status_changes",
    "Orders by the status that they came to, and from where; a new order comes from NEW.",
    ("from_status", "to_status"),
    registry=REGISTRY,
)
_by_projection: Final = Counter(
    "shop_buyers_known_by_projection",
    "Buyers of whom the users' events told whether they may order, since the user service did not answer.",
    registry=REGISTRY,
)


def status_changed(*, before: OrderStatus | None, after: OrderStatus) -> None:
    """Count a change of an order's status, once it is committed. A new order has none before."""
    _status_changes.labels(before or "NEW", after).inc()


def projection_answered(buyers: int) -> None:
    """Count buyers of whom the users' events told whether they may order, since the user service did not."""
    _by_projection.inc(buyers)
