"""The use cases of orders. Opens the transactions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from chassis.clock import new_id
from chassis.database.keyed import Lookup
from chassis.errors import InvalidPageToken
from chassis.idempotency.inserts import IdempotentInserts
from chassis.idempotency.store import ResponseCodec
from chassis.idempotency.transactions import IdempotentTransactions, LockedChange
from order_svc import buyer_projection, events, metrics, repository
from order_svc.buyer_projection import UserState
from order_svc.commands import Transition
from order_svc.errors import OrderNotFound
from order_svc.model import Order, OrderId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.errors import DomainError
    from chassis.idempotency.key import IdempotencyKey
    from chassis.idempotency.transactions import Request
    from chassis.server.pagination import Page, PageRequest
    from order_svc.buyers import BuyerDirectory
    from order_svc.commands import CancelOrder, ChangeStatus, PlaceOrder
    from order_svc.model import BuyerId, OrderEvent, OrderFilter

_ADAPTER: Final = TypeAdapter(Order)
_ORDER: Final = ResponseCodec.of(_ADAPTER, resource_id=attrgetter("id"))
# A repetition of a status change is answered with the order of that time; it changes nothing.
_TRANSITION: Final[ResponseCodec[Transition]] = ResponseCodec(
    dump=lambda transition: _ADAPTER.dump_json(transition.order),
    load=lambda response: Transition(_ADAPTER.validate_json(response)),
    resource_id=attrgetter("order.id"),
)

# The responses of a batch are made in one turn of the loop: 128 of the largest ones would hold it for 0.1 s.
_LOOKUPS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class _Locked:
    """An order that is locked until the transaction ends.

    Attributes:
        is_buyer_deleted: whether the deletion of its buyer is known, so that reasons are not stored any more: people
            write names into them.
    """

    order: Order
    is_buyer_deleted: bool


class OrderService:
    """The use cases of orders. Concurrent calls are answered in batches."""

    def __init__(self, database: Database, buyers: BuyerDirectory, clock: Clock) -> None:
        self._database = database
        self._buyers = buyers
        self._clock = clock
        self._lookups = database.batched_reads(repository.find_orders, name="orders.find", max_items=_LOOKUPS_AT_ONCE)
        self._inserts = IdempotentInserts(
            database, repository.insert_orders, name="orders.place", check=self._check_buyers, codec=_ORDER
        )
        change = LockedChange(lock=_lock, apply=self._apply, write=_write)
        self._changes = IdempotentTransactions(
            database, change, name="orders.move", exclusive_by=attrgetter("order_id"), codec=_TRANSITION
        )

    async def place_order(self, command: PlaceOrder, *, key: IdempotencyKey) -> Order:
        """Place an order, in status PENDING.

        Raises:
            InvalidFields, CurrencyMismatch, AmountOutOfRange: as PlaceOrder.apply().
            OrderingUserNotFound, UserNotActive: the buyer may not order.
            UserServiceUnavailable: the state of the buyer is unknown.
            RequestIdReused: the key was used with other content.
        """
        order = command.apply(OrderId(new_id()), now=self._clock.now())
        placed = await self._inserts.submit(key, order, event=events.order_created(order))
        if placed.id == order.id:
            metrics.status_changed(before=None, after=placed.status)
        return placed

    async def change_status(self, command: ChangeStatus | CancelOrder, *, key: IdempotencyKey) -> Order:
        """Change the status of an order, or cancel it.

        Raises:
            OrderNotFound: there is no such order.
            InvalidStatusTransition, EtagMismatch: as ChangeStatus.apply().
            RequestIdReused: the key was used with other content.
        """
        transition = await self._changes.submit(key, command)
        if transition.before:
            metrics.status_changed(before=transition.before, after=transition.order.status)
        return transition.order

    async def get_order(self, order_id: OrderId, *, owner: BuyerId | None) -> Order:
        """Return an order; `owner` is the only user whose orders the caller may see, None for any.

        Raises:
            OrderNotFound: there is none.
        """
        found = await self._lookups.submit(Lookup(order_id, owner))
        if found is None:
            raise OrderNotFound(order_id)
        return found

    async def list_orders(self, page: PageRequest, *, filters: OrderFilter) -> Page[Order]:
        """Return a page of orders, newest first."""
        return await self._database.read(lambda connection: repository.list_orders(connection, page, filters=filters))

    async def list_events(self, page: PageRequest, *, order_id: OrderId, owner: BuyerId | None) -> Page[OrderEvent]:
        """Return a page of an order's history, oldest first. `owner` as in get_order().

        Raises:
            OrderNotFound: there is no such order.
            InvalidPageToken: the token names the last entry of the history, or an entry that it does not have.
        """
        found = await self._database.read(
            lambda connection: repository.list_events(connection, page, order_id=order_id, owner=owner)
        )
        if not found.rows:  # every order has a first entry, and every token that the service made has a page
            await self.get_order(order_id, owner=owner)
            raise InvalidPageToken
        return found

    async def _check_buyers(self, orders: Sequence[Order]) -> Mapping[UUID, DomainError]:
        refused = await self._buyers.refusals({order.user_id for order in orders})
        return {order.id: refused[order.user_id] for order in orders if order.user_id in refused}

    def _apply(self, command: ChangeStatus, locked: _Locked | None) -> Transition:
        if locked is None:
            raise OrderNotFound(command.order_id)
        if locked.is_buyer_deleted:
            command = dataclasses.replace(command, reason="")
        return command.apply(locked.order, now=self._clock.now())


def _lock(connection: Connection, commands: Sequence[ChangeStatus], *, wait: bool) -> list[_Locked | None]:
    lookups = [Lookup(command.order_id, command.owner) for command in commands]
    found = repository.lock_orders(connection, lookups, wait=wait)
    buyers = {order.user_id for order, command in zip(found, commands, strict=True) if order and command.reason}
    # A statement after the locks: if they had to wait for the event of a deletion, it sees that deletion.
    states = buyer_projection.find_states(connection, buyers) if buyers else {}
    return [
        None if order is None else _Locked(order, states.get(order.user_id) is UserState.DELETED) for order in found
    ]


def _write(connection: Connection, outcomes: Sequence[tuple[Request[ChangeStatus], Transition]]) -> None:
    """Write the orders whose status changes, with their histories and events."""
    changes = [
        (each, events.status_changed(each.order, before=each.before, traceparent=request.traceparent))
        for request, each in outcomes
        if each.before
    ]
    repository.update_orders(connection, changes)
