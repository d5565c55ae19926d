"""Applies the events of users: the projection of users follows.

The open orders of a deleted user are cancelled, and the texts that people wrote about any of their orders are erased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from shop.event.v1.user_events_pb2 import UserCreated, UserDeleted, UserUpdated

from chassis.clock import SystemClock
from chassis.database.keyed import Lookup
from chassis.errors import DatabaseUnavailable
from chassis.events.cloudevents import Malformed, data_of, uuid_subject
from chassis.idempotency import store
from chassis.runtime.periodic import Failures, every
from order_svc import deleted_buyers, repository
from order_svc.buyer_projection import KnownUser, UserState, put_users
from order_svc.commands import CancelOrder
from order_svc.errors import InvalidStatusTransition
from order_svc.events import status_changed
from order_svc.model import BuyerId

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.events.cloudevents import CloudEvent
    from chassis.events.outbox import Event
    from order_svc.commands import Transition
    from order_svc.model import OrderId

log = structlog.get_logger(__name__)

_MESSAGES: Final[Mapping[str, type[UserCreated | UserUpdated | UserDeleted]]] = {
    "user.created": UserCreated,
    "user.updated": UserUpdated,
    "user.deleted": UserDeleted,
}
_REASON: Final = "The user was deleted."
_BATCH: Final = 500

# An order is placed at most 30 s (`max_call_s`) after its buyer was looked up. The event of a deletion misses an order
# that is placed while it is applied, so for some time after it such orders are looked for. While there are some, and at
# the start of a worker, that time is longer: a user may have more orders than can be cancelled in that time, and the
# last worker may have been killed just after the event.
_LOOK_EVERY_S: Final = 5.0
_LOOK_FOR_S: Final = 300.0
_LOOK_FOR_LONG_S: Final = 7 * 24 * 3600.0


def handle(connection: Connection, events: Sequence[CloudEvent]) -> None:
    """Apply events of users."""
    known: dict[BuyerId, KnownUser] = {}
    traces: dict[BuyerId, str] = {}
    for event in events:
        if event.type in _MESSAGES:  # a type of a newer version is skipped
            user = _user(event)
            known[user.id], traces[user.id] = user, event.traceparent
    if not known:
        return
    put_users(connection, list(known.values()))
    if deleted := {user.id: traces[user.id] for user in known.values() if user.state is UserState.DELETED}:
        cancel_open_orders(connection, deleted)  # if there are more, look_for_late_orders() cancels them
        erase_texts(connection, list(deleted))


def cancel_open_orders(connection: Connection, traces: Mapping[BuyerId, str]) -> int:
    """Cancel some of the users' orders that can be cancelled; return how many, 0 when there are no more.

    `traces` has the traceparent for the events of each user; empty for none.
    """
    now = SystemClock().now()
    found = deleted_buyers.open_orders_of(connection, list(traces), batch=_BATCH)
    changes: list[tuple[Transition, Event]] = []
    for order in repository.lock_orders(connection, [Lookup(order_id) for order_id in found], wait=True):
        if order is None:
            continue
        command = CancelOrder(order_id=order.id, owner=None, reason=_REASON, etag="")
        try:
            cancelled = command.apply(order, now=now)
        except InvalidStatusTransition:
            continue  # it was shipped while this transaction waited for the lock
        if cancelled.before:
            event = status_changed(cancelled.order, before=cancelled.before, traceparent=traces[order.user_id])
            changes.append((cancelled, event))
    repository.update_orders(connection, changes)
    return len(changes)


def erase_texts(connection: Connection, user_ids: Sequence[BuyerId]) -> None:
    """Erase the reasons in the users' orders and their histories, and the stored responses that show them.

    A change that is being written commits first, so its reason is erased too. A later change sees that the user is
    deleted, and stores no reason.
    """
    after: OrderId | None = None
    while found := deleted_buyers.lock_orders_of(connection, user_ids, after=after, batch=_BATCH):
        deleted_buyers.erase_reasons(connection, found, but=_REASON)
        store.erase_responses(connection, found)
        after = found[-1]


async def look_for_late_orders(database: Database, stopping: asyncio.Event) -> None:
    """Cancel orders that the event of their buyer's deletion has left open, every 5 s until `stopping` is set.

    They were placed meanwhile, or there were too many for one transaction.
    """
    within_s = _LOOK_FOR_LONG_S

    def cancel(connection: Connection) -> int:
        late = deleted_buyers.deleted_with_open_orders(connection, within_s=within_s)
        return cancel_open_orders(connection, dict.fromkeys(late, "")) if late else 0

    async def cancel_some() -> bool:
        nonlocal within_s
        cancelled = await database.transaction(cancel)
        within_s = _LOOK_FOR_LONG_S if cancelled else _LOOK_FOR_S
        if cancelled:
            log.info("orders.cancelled_late", count=cancelled)
        return cancelled > 0

    failures = Failures(
        failed="orders.late_not_looked_for", recovered="orders.late_looked_for", errors=(DatabaseUnavailable,)
    )
    await every(_LOOK_EVERY_S, cancel_some, failures=failures, stopping=stopping)


def _user(event: CloudEvent) -> KnownUser:
    data = data_of(event, _MESSAGES[event.type])
    try:
        state = UserState(data.state)
    except ValueError as error:
        raise Malformed("has a state that is none") from error
    return KnownUser(id=BuyerId(uuid_subject(event)), state=state, updated_at=event.time)
