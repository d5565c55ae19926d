"""The use cases of orders. Opens the transactions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import TypeAdapter

from chassis.clock import new_id
from chassis.concurrency.batcher import Batcher, RunAlone
from chassis.errors import DatabaseUnavailable, DomainError, InvalidPageToken
from chassis.events import outbox
from chassis.idempotency import store
from chassis.idempotency.store import Answered, first_of_each_key
from order_svc import metrics, repository
from order_svc.errors import OrderNotFound
from order_svc.model import Actor, BuyerId, NewItem, Order, OrderEvent, OrderFilter, OrderId, OrderStatus, price_items
from order_svc.repository import Move, Placement, Wanted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.store import Once
    from chassis.server.pagination import PageRequest

# How the answer to a write is kept for its repetition.
SNAPSHOT: Final = TypeAdapter(Order)

# Groups of orders to place that are under way. One: while it asks the user service and is written the next one gathers,
# and with two each would be half as long.
_PLACING_AT_ONCE: Final = 1


# Their answers are made in one turn of the loop: of the largest orders 128 would hold it for 0.2 s.
_LOOKUPS_AT_ONCE: Final = 32


class UserDirectory(Protocol):
    """Knows the users; the user service, in truth."""

    async def refusals(self, user_ids: Collection[BuyerId]) -> Mapping[BuyerId, DomainError]:
        """Return why those users may not order who may not: OrderingUserNotFound or UserNotActive.

        Raises:
            UserServiceUnavailable: nobody can say.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """An order to place."""

    user_id: BuyerId
    currency_code: str
    items: Sequence[NewItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOrder:
    """Where to move an order, and in which role.

    Attributes:
        is_repeatable: whether it succeeds, and changes nothing, when the order is there already.
    """

    order_id: OrderId
    status: OrderStatus
    by: Actor
    reason: str
    etag: str
    is_repeatable: bool = False

    def applied_to(self, order: Order, *, now: datetime) -> Order:
        """Return the order as it is then: the same object if it is there already and that is good.

        Raises:
            InvalidStatusTransition: it cannot go there.
            EtagMismatch: it has changed since.
        """
        if self.is_repeatable and order.status is self.status:
            return order
        order.require_etag(self.etag)
        return order.moved_to(self.status, by=self.by, reason=self.reason, now=now)


@dataclass(frozen=True, slots=True)
class _Moving:
    """An order to move, once, by who may touch this owner's orders."""

    command: MoveOrder
    owner: BuyerId | None
    once: Once
    traceparent: str


@dataclass(frozen=True, slots=True)
class _Moved:
    """An order after a request to move it.

    Attributes:
        before: the status that it had; None if this request has not moved it, but was repeated or found it there.
    """

    order: Order
    before: OrderStatus | None = None


class OrderService:
    """The use cases of orders. What callers ask for at the same time is done together."""

    def __init__(self, database: Database, users: UserDirectory, clock: Clock) -> None:
        self._database = database
        self._users = users
        self._clock = clock
        self._lookups = database.batched_reads(repository.find_orders, name="orders.find", max_items=_LOOKUPS_AT_ONCE)
        self._moves = database.batched_writes(
            partial(self._move, waits=False), name="orders.move", write_alone=partial(self._move, waits=True)
        )
        self._placements = Batcher(
            self._place_together,
            name="orders.place",
            alone=self._place_alone,
            limits=database.limits(at_once=_PLACING_AT_ONCE),
        )

    async def place_order(self, command: PlaceOrder, *, once: Once) -> Order:
        """Place an order, in status PENDING.

        Raises:
            CurrencyMismatch, AmountOutOfRange: the items do not add up.
            OrderingUserNotFound, UserNotActive: the buyer may not order.
            UserServiceUnavailable: nobody can say who the buyer is.
            RequestIdReused: the request id was used with other content.
        """
        items = price_items(command.items, currency_code=command.currency_code)
        now = self._clock.now()
        order = Order(
            id=OrderId(new_id()),
            user_id=command.user_id,
            status=OrderStatus.PENDING,
            currency_code=command.currency_code,
            items=items,
            cancel_reason="",
            created_at=now,
            updated_at=now,
            version=1,
        )
        event = event_of(order, from_status=None, traceparent=outbox.traceparent_now())
        placed = await self._placements.submit(Placement(order, event, once, SNAPSHOT.dump_json(order)))
        if placed is order:  # and not the answer of an earlier request
            metrics.status_changed(before=None, after=placed.status)
        return placed

    async def _place_together(self, placements: Sequence[Placement]) -> list[Order | Exception]:
        refused = await self._refused(placements)
        # Who may not order is told so without a transaction.
        nobody_orders = all(placement.order.user_id in refused for placement in placements)
        run = self._database.fetch if nobody_orders else self._database.fetch_for_write
        return await _place(run, placements, refused=refused)

    async def _place_alone(self, placements: Sequence[Placement]) -> list[Order | Exception]:
        refused = await self._refused(placements)
        return await _place(self._database.fetch_on_shared_pool, placements, refused=refused)

    async def _refused(self, placements: Sequence[Placement]) -> Mapping[BuyerId, DomainError]:
        """Return why those buyers may not order who may not."""
        buyers = {placement.order.user_id for placement in placements}
        try:
            # Before BEGIN: a slow peer must not hold row locks.
            return await self._users.refusals(buyers)
        except DomainError as error:
            return dict.fromkeys(buyers, error)

    async def get_order(self, order_id: OrderId, *, owner: BuyerId | None) -> Order:
        """Return an order.

        Args:
            order_id: of the order.
            owner: the only user whose orders are to be seen; None for everybody's.

        Raises:
            OrderNotFound: there is none.
        """
        found = await self._lookups.submit(Wanted(order_id, owner))
        if found is None:
            raise OrderNotFound(order_id)
        return found

    async def list_orders(self, page: PageRequest, *, filters: OrderFilter) -> tuple[list[Order], bool]:
        """Return a page of orders, newest first, and whether there are more."""
        return await self._database.read(lambda connection: repository.list_orders(connection, page, filters=filters))

    async def list_events(self, page: PageRequest, *, order_id: OrderId, owner: BuyerId | None) -> list[OrderEvent]:
        """Return a page of an order's history, oldest first, and one more if there are more. `owner` as in get_order().

        Raises:
            OrderNotFound: there is no such order.
            InvalidPageToken: the order's history has nothing after the token's entry, or no such entry.
        """
        found = await self._database.read(
            lambda connection: repository.list_events(connection, page, order_id=order_id, owner=owner)
        )
        if not found:  # every order has a first entry, and every token that was given out has a page
            await self.get_order(order_id, owner=owner)
            raise InvalidPageToken
        return found

    async def move_order(self, command: MoveOrder, *, owner: BuyerId | None, once: Once) -> Order:
        """Move an order to another status. `owner` as in get_order().

        Raises:
            OrderNotFound: there is no such order.
            InvalidStatusTransition: it cannot go there.
            EtagMismatch: the order has changed since.
            RequestIdReused: the request id was used with other content.
        """
        moved = await self._moves.submit(_Moving(command, owner, once, outbox.traceparent_now()))
        if moved.before:
            metrics.status_changed(before=moved.before, after=moved.order.status)
        return moved.order

    def _move(self, connection: Connection, moving: Sequence[_Moving], *, waits: bool) -> list[_Moved | Exception]:
        """Move orders in one transaction; give each, or why it does not move.

        Unless they may wait, those that would have to, for another transaction or for one another, are to be run alone.
        """
        answers: list[_Moved | Exception] = [RunAlone()] * len(moving)
        chosen = _first_of_each_order(moving)
        ours = store.claim(connection, [each.once for each in chosen.values()])
        repeated = {n: each.once for n, each in chosen.items() if not each.once.is_in(ours)}
        kept = store.find(connection, list(repeated.values()), snapshot=SNAPSHOT)
        for n, answer in zip(repeated, kept, strict=True):
            # None was removed between the two statements, by its expiry.
            answers[n] = _Moved(answer) if isinstance(answer, Order) else answer or DatabaseUnavailable()
        fresh = {n: each for n, each in chosen.items() if n not in repeated}
        for n, outcome in self._moved(connection, fresh, waits=waits).items():
            answers[n] = outcome
        return answers

    def _moved(
        self, connection: Connection, moving: Mapping[int, _Moving], *, waits: bool
    ) -> Mapping[int, _Moved | Exception]:
        """Move orders whose keys are ours. Keys of those that do not move are given back."""
        wanted = [Wanted(each.command.order_id, each.owner) for each in moving.values()]
        locked = repository.lock_orders(connection, wanted, waits=waits)
        moves: list[Move] = []
        outcomes: dict[int, _Moved | Exception] = {}
        for (n, each), order in zip(moving.items(), locked, strict=True):
            if order is None:
                outcomes[n] = OrderNotFound(each.command.order_id) if waits else RunAlone()
                continue
            try:
                moved = each.command.applied_to(order, now=self._clock.now())
            except DomainError as error:
                outcomes[n] = error
                continue
            outcomes[n] = _Moved(moved, None if moved is order else order.status)
            if moved is not order:
                event = event_of(moved, from_status=order.status, traceparent=each.traceparent)
                moves.append(Move(moved, order.status, each.command.reason, event))
        repository.move_orders(connection, moves)
        _settle(connection, moving, outcomes)
        return outcomes


def _first_of_each_order(moving: Sequence[_Moving]) -> Mapping[int, _Moving]:
    """Return by their number those of which no earlier one is for the same order or has the same key."""
    chosen: dict[OrderId, int] = {}
    for n, each in first_of_each_key(moving).items():
        chosen.setdefault(each.command.order_id, n)
    return {n: moving[n] for n in chosen.values()}


def _settle(connection: Connection, moving: Mapping[int, _Moving], outcomes: Mapping[int, _Moved | Exception]) -> None:
    """Keep the answers under the keys of the requests, and give back the keys of those that failed."""
    answered: list[Answered] = []
    failed: list[Once] = []
    for n, outcome in outcomes.items():
        once = moving[n].once
        if isinstance(outcome, Exception):
            failed.append(once)
        else:
            answered.append(Answered(once, outcome.order.id, SNAPSHOT.dump_json(outcome.order)))
    store.complete(connection, answered)
    store.release(connection, failed)


async def _place(
    fetch: Fetch, placements: Sequence[Placement], *, refused: Mapping[BuyerId, DomainError]
) -> list[Order | Exception]:
    """Write the orders of those who are not refused; give each order, of an earlier request with its key the first."""
    candidates = [placement for placement in placements if placement.order.user_id not in refused]
    written = await repository.place_orders(fetch, list(first_of_each_key(candidates).values()))
    # A repetition gets the first answer, whatever has become of the buyer since.
    rest = [placement for placement in placements if placement.order.id not in written]
    kept = await store.look_up(fetch, [placement.once for placement in rest], snapshot=SNAPSHOT)
    answered = dict(zip((placement.order.id for placement in rest), kept, strict=True))

    def answer_to(placement: Placement) -> Order | Exception:
        order = placement.order
        if order.id in written:
            return order
        # If it is nowhere, it was removed between the two statements, by its expiry.
        return answered[order.id] or refused.get(order.user_id) or DatabaseUnavailable()

    return [answer_to(placement) for placement in placements]


def event_of(order: Order, *, from_status: OrderStatus | None, traceparent: str) -> outbox.Event:
    """Return the event that tells of the order's last change. No reason in it: people write names there."""
    data: dict[str, object] = {"orderId": str(order.id), "userId": str(order.user_id)}
    if from_status is None:
        total = order.total_amount
        units = int(total)
        data |= {
            "amount": f"{total:f}",
            "currencyCode": order.currency_code,
            "total": {"units": str(units), "nanos": int((total - units) * 10**9)},
        }
        kind = "order.created"
    else:
        data |= {"from": from_status.value, "to": order.status.value}
        kind = "order.cancelled" if order.status is OrderStatus.CANCELLED else "order.status_changed"
    return outbox.Event(kind, order.id, order.version, data, order.updated_at, traceparent)
