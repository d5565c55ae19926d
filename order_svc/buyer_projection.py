"""The statements on the projection of users, which follows their events. Never commits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from chassis.events.copies import Copies
from chassis.events.redis_streams import stream_of
from order_svc.model import BuyerId

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

USERS: Final = stream_of("user")

_USERS: Final = Copies(
    "known_users",
    {"id": "uuid", "state": "text", "updated_at": "timestamptz"},
    copied_at="applied_at",
    final="state = 'DELETED'",
)
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
    _USERS.put(connection, [{"id": user.id, "state": user.state, "updated_at": user.updated_at} for user in users])


def find_states(connection: Connection, ids: Collection[BuyerId]) -> dict[BuyerId, UserState]:
    """Return the states of known users; unknown users are absent."""
    return {BuyerId(row.id): UserState(row.state) for row in connection.execute(_find, {"ids": list(ids)})}
