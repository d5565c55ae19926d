"""What the events of users do here: the projection of users follows.

The open orders of a deleted user are cancelled, and what people wrote about any of that user's orders is erased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from shop.event.v1.user_events_pb2 import UserCreated, UserDeleted, UserUpdated

from chassis.clock import SystemClock
from chassis.errors import DatabaseUnavailable
from chassis.events.cloudevents import Malformed, data_of
from chassis.idempotency import store
from chassis.runtime.worker import pause
from order_svc import projection, repository
from order_svc.model import Actor, BuyerId, OrderStatus, allowed_transitions
from order_svc.projection import KnownUser, UserState
from order_svc.repository import Move, Wanted
from order_svc.service import event_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.events.cloudevents import CloudEvent
    from order_svc.model import OrderId

log = structlog.get_logger(__name__)

_MESSAGES: Final[Mapping[str, type[UserCreated | UserUpdated | UserDeleted]]] = {
    "user.created": UserCreated,
    "user.updated": UserUpdated,
    "user.deleted": UserDeleted,
}
_REASON: Final = "The user was deleted."
_BATCH: Final = 500

# An order is placed at most MAX_CALL_S, 30 s, after its buyer was looked up. One that is placed while the event of the
# deletion takes effect would be missed by it, so for some time they are looked for.
_LOOK_EVERY_S: Final = 5.0
_LOOK_FOR_S: Final = 300.0


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Let events of users take effect."""
    known: dict[BuyerId, KnownUser] = {}
    traces: dict[BuyerId, str] = {}
    for event in events:
        if event.type in _MESSAGES:  # types that are new say nothing to us
            user = _user(event)
            known[user.id], traces[user.id] = user, event.traceparent
    if not known:
        return
    projection.put_users(connection, list(known.values()))
    if deleted := {user.id: traces[user.id] for user in known.values() if user.state is UserState.DELETED}:
        while cancel_open_orders(connection, deleted):
            pass
        erase_what_was_written(connection, list(deleted))


def cancel_open_orders(connection: Connection, traces: Mapping[BuyerId, str]) -> int:
    """Cancel some of the users' orders that can be cancelled; return how many, 0 when there are no more.

    Args:
        connection: inside the transaction.
        traces: the users, and the traceparent for the events of each; empty for none.
    """
    now = SystemClock().now()
    found = projection.open_orders_of(connection, list(traces), batch=_BATCH)
    moves: list[Move] = []
    for order in repository.lock_orders(connection, [Wanted(order_id) for order_id in found], waits=True):
        # While the lock was waited for it may have been shipped.
        if order is None or OrderStatus.CANCELLED not in allowed_transitions(order.status, by=Actor.STAFF):
            continue
        moved = order.moved_to(OrderStatus.CANCELLED, by=Actor.STAFF, reason=_REASON, now=now)
        event = event_of(moved, from_status=order.status, traceparent=traces[order.user_id])
        moves.append(Move(moved, order.status, _REASON, event))
    repository.move_orders(connection, moves)
    return len(moves)


def erase_what_was_written(connection: Connection, user_ids: Sequence[BuyerId]) -> None:
    """Erase the reasons in the users' orders and their histories, and the kept answers that show them."""
    after: OrderId | None = None
    while found := projection.orders_of(connection, user_ids, after=after, batch=_BATCH):
        projection.erase_reasons(connection, found, but=_REASON)
        store.erase_answers(connection, found)
        after = found[-1]


async def look_for_late_orders(database: Database, stopping: asyncio.Event) -> None:
    """Cancel orders that were placed while their buyer was being deleted, until told to stop."""

    def cancel(connection: Connection) -> int:
        late = projection.deleted_with_open_orders(connection, within_s=_LOOK_FOR_S)
        return cancel_open_orders(connection, dict.fromkeys(late, "")) if late else 0

    while not stopping.is_set():
        try:
            if cancelled := await database.transaction(cancel):
                log.info("orders.cancelled_late", count=cancelled)
        except DatabaseUnavailable as error:
            log.warning("orders.late_not_looked_for", exc_info=error)
        await pause(stopping, _LOOK_EVERY_S)


def _user(event: CloudEvent) -> KnownUser:
    data = data_of(event, _MESSAGES[event.type])
    try:
        state = UserState(data.state)
    except ValueError as error:
        raise Malformed("has a state that is none") from error
    return KnownUser(id=BuyerId(event.subject), state=state, updated_at=event.time)
