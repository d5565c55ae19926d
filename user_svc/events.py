"""The events of users: made from the model, as messages of `shop.event.v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.event.v1.user_events_pb2 import UserCreated, UserDeleted, UserUpdated

from chassis.events.cloudevents import payload_of
from chassis.events.outbox import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from user_svc.model import User


def user_created(user: User) -> Event:
    """Return the event of a new user, with the trace of the current call."""
    return _event("user.created", user, UserCreated(user_id=str(user.id), state=user.state.value))


def user_updated(user: User, *, changed: Sequence[str]) -> Event:
    """Return the event of a user's last change: of fields as the contract's JSON spells them, or of the `password`."""
    payload = UserUpdated(user_id=str(user.id), state=user.state.value, changed_fields=changed)
    return _event("user.updated", user, payload)


def user_deleted(user: User) -> Event:
    """Return the event of a deleted user."""
    return _event("user.deleted", user, UserDeleted(user_id=str(user.id), state=user.state.value))


def _event(kind: str, user: User, payload: UserCreated | UserUpdated | UserDeleted) -> Event:
    return Event(kind, user.id, user.version, payload_of(payload), user.updated_at)
