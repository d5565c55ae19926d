"""The statements on what the order service knows of users, from their events. Never commits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

from chassis.events import inbox
from chassis.events.redis_streams import stream_of
from order_svc.model import Actor, BuyerId, OrderId, OrderStatus, allowed_transitions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

USERS: Final = stream_of("user")

_OPEN: Final = [
    status for status in OrderStatus if OrderStatus.CANCELLED in allowed_transitions(status, by=Actor.STAFF)
]
"""What staff can cancel. What is on its way cannot be called back."""

# A tombstone wins over whatever comes after it.
_put = text("""
    INSERT INTO known_users (id, state, updated_at, applied_at)
    SELECT id, state, updated_at, now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:times AS timestamptz[]))
        AS new (id, state, updated_at)
    ORDER BY id
    ON CONFLICT ON CONSTRAINT known_users_pkey DO UPDATE
    SET state = excluded.state, updated_at = excluded.updated_at, applied_at = excluded.applied_at
    WHERE known_users.state <> 'DELETED'
""")
_find = text("SELECT id, state FROM known_users WHERE id = ANY (:ids)")
_open_of = text("""
    SELECT id
    FROM orders
    WHERE user_id = ANY (:user_ids) AND status = ANY (:open)
    ORDER BY id
    LIMIT :batch
""")
_orders_of = text("""
    SELECT id
    FROM orders
    WHERE user_id = ANY (:user_ids) AND id > :after
    ORDER BY id
    LIMIT :batch
""")
_erase_reasons = text("""
    WITH erased AS (
        UPDATE orders
        SET cancel_reason = ''
        WHERE id = ANY (:order_ids) AND cancel_reason NOT IN ('', :ours)
    )
    UPDATE order_events
    SET reason = ''
    WHERE order_id = ANY (:order_ids) AND reason NOT IN ('', :ours)
""")
_recently_deleted = text("""
    SELECT DISTINCT known_users.id
    FROM known_users
    JOIN orders ON orders.user_id = known_users.id AND orders.status = ANY (:open)
    WHERE known_users.state = 'DELETED' AND known_users.applied_at > now() - make_interval(secs => :within_s)
    LIMIT 100
""")


class UserState(StrEnum):
    """Where a user stands."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownUser:
    """A user, as the last event told.

    Attributes:
        updated_at: when the user changed.
    """

    id: BuyerId
    state: UserState
    updated_at: datetime


def put_users(connection: Connection, users: Sequence[KnownUser]) -> None:
    """Write what is now known of users, each once."""
    rows = {
        "ids": [user.id for user in users],
        "states": [user.state.value for user in users],
        "times": [user.updated_at for user in users],
    }
    connection.execute(_put, rows)


def find_states(connection: Connection, ids: Collection[BuyerId]) -> dict[BuyerId, UserState]:
    """Return where the users stand who are known."""
    return {BuyerId(row.id): UserState(row.state) for row in connection.execute(_find, {"ids": list(ids)})}


def users_as_of(connection: Connection) -> datetime | None:
    """Return the time up to which every change of a user is known; None if nobody knows."""
    return inbox.as_of(connection, USERS)


def open_orders_of(connection: Connection, user_ids: Sequence[BuyerId], *, batch: int) -> list[OrderId]:
    """Return orders of the users that can be cancelled, so many at most."""
    rows = connection.execute(_open_of, {"user_ids": list(user_ids), "open": _OPEN, "batch": batch})
    return [OrderId(row.id) for row in rows]


def orders_of(
    connection: Connection, user_ids: Sequence[BuyerId], *, after: OrderId | None, batch: int
) -> list[OrderId]:
    """Return at most a batch of the users' orders behind this one, by id."""
    values = {"user_ids": list(user_ids), "after": after or UUID(int=0), "batch": batch}
    return [OrderId(row.id) for row in connection.execute(_orders_of, values)]


def erase_reasons(connection: Connection, order_ids: Sequence[OrderId], *, but: str) -> None:
    """Erase what people wrote when they moved these orders; one reason stays. No version: nothing else has changed."""
    connection.execute(_erase_reasons, {"order_ids": list(order_ids), "ours": but})


def deleted_with_open_orders(connection: Connection, *, within_s: float) -> list[BuyerId]:
    """Return users of whose deletion we heard so recently, and who have orders that can be cancelled."""
    rows = connection.execute(_recently_deleted, {"open": _OPEN, "within_s": within_s})
    return [BuyerId(row.id) for row in rows]
