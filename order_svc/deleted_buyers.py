"""The statements on orders whose buyer is deleted: they are cancelled, and texts about them erased. Never commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

from order_svc.model import Actor, BuyerId, OrderId, OrderStatus, allowed_transitions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_OPEN: Final = [
    status for status in OrderStatus if OrderStatus.CANCELLED in allowed_transitions(status, by=Actor.STAFF)
]
"""The statuses in which staff can cancel an order: it has not been shipped."""

_open_orders_of = text("""
    SELECT id
    FROM orders
    WHERE user_id = ANY (:user_ids) AND status = ANY (:open)
    ORDER BY id
    LIMIT :batch
""")
_lock_orders_of = text("""
    SELECT id
    FROM orders
    WHERE user_id = ANY (:user_ids) AND id > :after
    ORDER BY id
    LIMIT :batch
    FOR UPDATE
""")
_erase_reasons = text("""
    WITH erased AS (
        UPDATE orders
        SET cancel_reason = ''
        WHERE id = ANY (:order_ids) AND cancel_reason NOT IN ('', :kept)
    )
    UPDATE order_events
    SET reason = ''
    WHERE order_id = ANY (:order_ids) AND reason NOT IN ('', :kept)
""")
_recently_deleted = text("""
    SELECT DISTINCT known_users.id
    FROM known_users
    JOIN orders ON orders.user_id = known_users.id AND orders.status = ANY (:open)
    WHERE known_users.state = 'DELETED' AND known_users.applied_at > now() - make_interval(secs => :within_s)
    LIMIT 100
""")


def open_orders_of(connection: Connection, user_ids: Sequence[BuyerId], *, batch: int) -> list[OrderId]:
    """Return at most `batch` orders of the users that can be cancelled."""
    rows = connection.execute(_open_orders_of, {"user_ids": list(user_ids), "open": _OPEN, "batch": batch})
    return [OrderId(row.id) for row in rows]


def lock_orders_of(
    connection: Connection, user_ids: Sequence[BuyerId], *, after: OrderId | None, batch: int
) -> list[OrderId]:
    """Lock and return at most `batch` orders of the users, those after one order, by id.

    Waits for changes under way; later ones wait for this transaction.
    """
    values = {"user_ids": list(user_ids), "after": after or UUID(int=0), "batch": batch}
    return [OrderId(row.id) for row in connection.execute(_lock_orders_of, values)]


def erase_reasons(connection: Connection, order_ids: Sequence[OrderId], *, but: str) -> None:
    """Erase the reasons that people gave for changes of these orders, but for one text. The versions stay."""
    connection.execute(_erase_reasons, {"order_ids": list(order_ids), "kept": but})


def deleted_with_open_orders(connection: Connection, *, within_s: float) -> list[BuyerId]:
    """Return users whose deletion was applied within `within_s` and who still have orders that can be cancelled."""
    rows = connection.execute(_recently_deleted, {"open": _OPEN, "within_s": within_s})
    return [BuyerId(row.id) for row in rows]
