"""The statements on the projection of users, which follows their events. Never commits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from chassis.events import inbox
from chassis.events.redis_streams import stream_of
from order_svc.model import BuyerId

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

USERS: Final = stream_of("user")

# DELETED is final: a later event changes nothing.
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


class UserState(StrEnum):
    """The state of a user."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownUser:
    """A user, as of the last event.

    Attributes:
        updated_at: when the user changed.
    """

    id: BuyerId
    state: UserState
    updated_at: datetime


def put_users(connection: Connection, users: Sequence[KnownUser]) -> None:
    """Write the states of different users."""
    rows = {
        "ids": [user.id for user in users],
        "states": [user.state.value for user in users],
        "times": [user.updated_at for user in users],
    }
    connection.execute(_put, rows)


def find_states(connection: Connection, ids: Collection[BuyerId]) -> dict[BuyerId, UserState]:
    """Return the states of known users; unknown users are absent."""
    return {BuyerId(row.id): UserState(row.state) for row in connection.execute(_find, {"ids": list(ids)})}


def users_as_of(connection: Connection) -> datetime | None:
    """Return the time up to which every change of a user is known; None if that is unknown."""
    return inbox.as_of(connection, USERS)
