"""The metrics of orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from chassis.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from order_svc.model import OrderStatus

_status_changes: Final = Counter(
    "shop_order_status_changes",
    "Status changes of orders; a new order changes from NEW.",
    ("from_status", "to_status"),
    registry=REGISTRY,
)
_by_projection: Final = Counter(
    "shop_buyers_known_by_projection",
    "Buyers checked against the local projection because the user service was unavailable.",
    registry=REGISTRY,
)


def status_changed(*, before: OrderStatus | None, after: OrderStatus) -> None:
    """Count a change of an order's status that is committed; `before` is None for a new order."""
    _status_changes.labels(before or "NEW", after).inc()


def projection_answered(buyers: int) -> None:
    """Count buyers checked against the local projection because the user service was unavailable."""
    _by_projection.inc(buyers)
