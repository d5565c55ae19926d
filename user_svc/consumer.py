"""Applies the events of orders: counts the orders of each user."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

from shop.event.v1.order_events_pb2 import OrderCreated
from sqlalchemy import text

from chassis.events.cloudevents import data_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from chassis.events.cloudevents import CloudEvent

# No new version and no new etag: for a caller that edits the user at this moment nothing has changed.
_count = text("""
    UPDATE users
    SET order_count = users.order_count + placed.orders
    FROM unnest(CAST(:ids AS uuid[]), CAST(:counts AS integer[])) AS placed (user_id, orders)
    WHERE users.id = placed.user_id
""")


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of orders."""
    placed = Counter(UUID(data_of(event, OrderCreated).user_id) for event in events if event.type == "order.created")
    if placed:
        connection.execute(_count, {"ids": list(placed), "counts": list(placed.values())})
