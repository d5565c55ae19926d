"""The use cases of orders, in memory: the same outcomes as `order_svc.service` has with its database."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from chassis.clock import new_id
from chassis.errors import InvalidPageToken
from chassis.server.pagination import Page
from chassis.watch.feed import FeedEvent
from order_svc.commands import CancelOrder, ChangeStatus, PlaceOrder
from order_svc.errors import OrderingUserNotFound, OrderNotFound, UserNotActive
from order_svc.model import Actor, BuyerId, Order, OrderEvent, OrderFilter, OrderId, OrderStatus, allowed_transitions
from protos.testing.answers import Answers
from user_svc.model import UserId, UserState

if TYPE_CHECKING:
    from chassis.clock import Clock
    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import PageRequest
    from order_svc.commands import Transition
    from protos.testing.feed import FeedInMemory
    from protos.testing.users import UsersInMemory

# Items of one page, as the service bounds it.
_MAX_PAGE_ITEMS: Final = 1000
_DELETED: Final = "The user was deleted."


class OrdersInMemory:
    """The orders of a shop. Its methods are those of OrderService."""

    def __init__(self, users: UsersInMemory, feed: FeedInMemory, clock: Clock) -> None:
        self._users = users
        self._feed = feed
        self._clock = clock
        self._orders: dict[OrderId, Order] = {}
        self._history: dict[OrderId, list[OrderEvent]] = {}
        self._answers: Answers[Order] = Answers(attrgetter("id"))

    async def place_order(self, command: PlaceOrder, *, key: IdempotencyKey) -> Order:
        """Place an order, as OrderService.place_order() does."""
        order = command.apply(OrderId(new_id()), now=self._clock.now())
        if (answered := self._answers.find(key)) is not None:
            return answered
        self._require_active(order.user_id)
        self._write(order, before=None, reason="")
        self._users.count_order(UserId(order.user_id))
        return self._answers.keep(key, order)

    def _require_active(self, buyer: BuyerId) -> None:
        user = self._users.find(UserId(buyer))
        if user is None:
            raise OrderingUserNotFound(buyer)
        if user.state is not UserState.ACTIVE:
            raise UserNotActive(buyer)

    async def change_status(self, command: ChangeStatus | CancelOrder, *, key: IdempotencyKey) -> Order:
        """Change the status of an order, as OrderService.change_status() does."""
        if (answered := self._answers.find(key)) is not None:
            return answered
        order = await self.get_order(command.order_id, owner=command.owner)
        transition = command.apply(order, now=self._clock.now())
        self._apply(transition, reason=command.reason)
        return self._answers.keep(key, transition.order)

    async def get_order(self, order_id: OrderId, *, owner: BuyerId | None) -> Order:
        """Return an order, as OrderService.get_order() does."""
        order = self._orders.get(order_id)
        if order is None or owner not in {None, order.user_id}:
            raise OrderNotFound(order_id)
        return order

    async def list_orders(self, page: PageRequest, *, filters: OrderFilter) -> Page[Order]:
        """Return a page of orders, newest first."""
        found = [
            order
            for order in sorted(self._orders.values(), key=attrgetter("id"), reverse=True)
            if (page.after is None or order.id < page.after)
            and filters.owner in {None, order.user_id}
            and filters.user_id in {None, order.user_id}
            and filters.status in {None, order.status}
        ]
        shown: list[Order] = []
        items = 0
        for order in found[: page.size]:
            if items >= _MAX_PAGE_ITEMS:
                break
            shown.append(order)
            items += len(order.items)
        return Page(shown, len(found) > len(shown))

    async def list_events(self, page: PageRequest, *, order_id: OrderId, owner: BuyerId | None) -> Page[OrderEvent]:
        """Return a page of an order's history, oldest first."""
        await self.get_order(order_id, owner=owner)
        history = self._history[order_id]
        ids = [event.id for event in history]
        start = 0 if page.after is None else ids.index(page.after) + 1 if page.after in ids else len(ids)
        found = history[start : start + page.size + 1]
        if not found:
            raise InvalidPageToken
        return page.split(found)

    def forget_buyer(self, user_id: UserId) -> None:
        """Cancel the open orders of a deleted user and erase what people wrote about them, as the consumer does."""
        orders = [order for order in self._orders.values() if order.user_id == user_id]
        for order in orders:
            if OrderStatus.CANCELLED in allowed_transitions(order.status, by=Actor.STAFF):
                command = CancelOrder(order_id=order.id, owner=None, reason=_DELETED, etag="")
                self._apply(command.apply(order, now=self._clock.now()), reason=_DELETED)
            current = self._orders[order.id]
            if current.cancel_reason != _DELETED:
                self._orders[order.id] = dataclasses.replace(current, cancel_reason="")
            self._history[order.id] = [
                entry if entry.reason == _DELETED else dataclasses.replace(entry, reason="")
                for entry in self._history[order.id]
            ]
        self._answers.erase([order.id for order in orders])

    def _apply(self, transition: Transition, *, reason: str) -> None:
        if transition.before:
            self._write(transition.order, before=transition.before, reason=reason)

    def _write(self, order: Order, *, before: OrderStatus | None, reason: str) -> None:
        """Write a version of an order with its history and its event."""
        self._orders[order.id] = order
        entry = OrderEvent(
            id=new_id(),
            order_id=order.id,
            from_status=before,
            to_status=order.status,
            reason=reason,
            occurred_at=order.updated_at,
        )
        self._history.setdefault(order.id, []).append(entry)
        kind = "order.cancelled" if order.status is OrderStatus.CANCELLED else "order.status_changed"
        self._feed.add(
            FeedEvent(
                position=self._feed.next_position(),
                type="order.created" if before is None else kind,
                subject=order.id,
                sequence=order.version,
                data={} if before is None else {"from": before.value, "to": order.status.value},
                owner=str(order.user_id),
                occurred_at=order.updated_at,
            )
        )
