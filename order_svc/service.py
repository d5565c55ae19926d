"""The use cases of orders. Opens the transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import TypeAdapter

from chassis import outbox
from chassis.clock import new_id
from chassis.errors import DomainError
from order_svc import repository
from order_svc.errors import OrderNotFound
from order_svc.model import Actor, BuyerId, NewItem, Order, OrderEvent, OrderFilter, OrderId, OrderStatus, price_items

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.db import Database
    from chassis.idempotency import Once
    from chassis.pagination import PageRequest

# How the answer to a write is kept for its repetition.
SNAPSHOT: Final = TypeAdapter(Order)


class UserDirectory(Protocol):
    """Knows the users; the user service, in truth."""

    async def require_active(self, user_ids: Sequence[BuyerId]) -> None:
        """Return if every user exists and may order.

        Raises:
            OrderingUserNotFound: one does not exist.
            UserNotActive: one may not order.
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


class OrderService:
    """The use cases of orders."""

    def __init__(self, database: Database, users: UserDirectory, clock: Clock) -> None:
        self._database = database
        self._users = users
        self._clock = clock

    async def place_order(self, command: PlaceOrder, *, once: Once) -> Order:
        """Place an order, in status PENDING.

        Raises:
            CurrencyMismatch, AmountOutOfRange: the items do not add up.
            OrderingUserNotFound, UserNotActive: the buyer may not order.
            UserServiceUnavailable: nobody can say who the buyer is.
            RequestIdReused: the request id was used with other content.
        """
        items = price_items(command.items, currency_code=command.currency_code)
        try:
            # Before BEGIN: a slow peer must not hold row locks.
            await self._users.require_active([command.user_id])
        except DomainError:
            # A repetition gets the first answer, whatever has become of the buyer since.
            answered = await self._database.read(lambda connection: once.find(connection, snapshot=SNAPSHOT))
            if answered is not None:
                return answered
            raise
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

        def write(connection: Connection) -> Order:
            repository.insert_orders(connection, [order])
            write_history(connection, order, from_status=None, reason="")
            return order

        return await self._once(write, once)

    async def get_order(self, order_id: OrderId, *, owner: BuyerId | None) -> Order:
        """Return an order.

        Args:
            order_id: of the order.
            owner: the only user whose orders are to be seen; None for everybody's.

        Raises:
            OrderNotFound: there is none.
        """
        found = await self._database.read(
            lambda connection: repository.find_orders(connection, [order_id], owner=owner)
        )
        if not found:
            raise OrderNotFound(order_id)
        return found[0]

    async def list_orders(self, page: PageRequest, *, filters: OrderFilter) -> list[Order]:
        """Return a page of orders, newest first, and one more if there are more."""
        return await self._database.read(lambda connection: repository.list_orders(connection, page, filters=filters))

    async def list_events(self, page: PageRequest, *, order_id: OrderId, owner: BuyerId | None) -> list[OrderEvent]:
        """Return a page of an order's history, oldest first, and one more if there are more. `owner` as in get_order().

        Raises:
            OrderNotFound: there is no such order.
        """
        found = await self._database.read(
            lambda connection: repository.list_events(connection, page, order_id=order_id, owner=owner)
        )
        if not found and page.after is None:  # every order has a first entry
            raise OrderNotFound(order_id)
        return found

    async def move_order(self, command: MoveOrder, *, owner: BuyerId | None, once: Once) -> Order:
        """Move an order to another status. `owner` as in get_order().

        Raises:
            OrderNotFound: there is no such order.
            InvalidStatusTransition: it cannot go there.
            EtagMismatch: the order has changed since.
            RequestIdReused: the request id was used with other content.
        """

        def write(connection: Connection) -> Order:
            found = repository.lock_orders(connection, [command.order_id], owner=owner)
            if not found:
                raise OrderNotFound(command.order_id)
            order = found[0]
            if command.is_repeatable and order.status is command.status:
                return order
            order.require_etag(command.etag)
            moved = order.moved_to(command.status, by=command.by, reason=command.reason, now=self._clock.now())
            repository.move_orders(connection, [moved])
            write_history(connection, moved, from_status=order.status, reason=command.reason)
            return moved

        return await self._once(write, once)

    async def _once(self, write: Callable[[Connection], Order], once: Once) -> Order:
        def run(connection: Connection) -> Order:
            return once.run(
                connection,
                lambda: write(connection),
                snapshot=SNAPSHOT,
                resource_id=lambda order: order.id,
            )

        return await self._database.transaction(run)


def write_history(connection: Connection, order: Order, *, from_status: OrderStatus | None, reason: str) -> None:
    """Write an order's next history entry and event, in the transaction of its change."""
    entry = OrderEvent(
        id=new_id(),
        order_id=order.id,
        from_status=from_status,
        to_status=order.status,
        reason=reason,
        occurred_at=order.updated_at,
    )
    repository.insert_events(connection, [entry])
    outbox.add(connection, [_event(order, from_status=from_status)])


def _event(order: Order, *, from_status: OrderStatus | None) -> outbox.Event:
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
    return outbox.Event(kind, order.id, order.version, data, order.updated_at)
