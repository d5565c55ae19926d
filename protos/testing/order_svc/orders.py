"""The use cases of orders, in memory: the same outcomes as `order_svc.service` has with its database."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from chassis.clock import new_id
from chassis.errors import InvalidPageToken
from chassis.server.pagination import Page
from chassis.watch.feed import FeedEvent
from order_svc.commands import CancelOrder, ChangeStatus, PlaceOrder
from order_svc.errors import OrderingUserNotFound, OrderNotFound, UserNotActive
from order_svc.model import Actor, BuyerId, Order, OrderEvent, OrderFilter, OrderId, OrderStatus, allowed_transitions
from protos.testing.feed import FeedInMemory
from protos.testing.resources import Resources
from protos.testing.user_svc.users import UsersInMemory
from user_svc.model import UserId, UserState

if TYPE_CHECKING:
    from collections.abc import Callable

    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import PageRequest
    from protos.testing.shop import Shop

# Items of one page, as the service bounds it.
_MAX_PAGE_ITEMS: Final = 1000
_DELETED: Final = "The user was deleted."


class OrdersInMemory:
    """The orders of a shop. Its methods are those of OrderService.

    Attributes:
        feed: the events of orders.
    """

    def __init__(self, shop: Shop) -> None:
        self._clock = shop.clock
        self._users = shop.part(UsersInMemory)
        self._users.on_deleted.append(self._forget_buyer)
        self._orders: Resources[Order] = Resources(OrderNotFound)
        self._history: dict[OrderId, list[OrderEvent]] = {}
        self.feed: Final = FeedInMemory(shop.clock)

    async def place_order(self, command: PlaceOrder, *, key: IdempotencyKey) -> Order:
        """Place an order, as OrderService.place_order() does."""
        order = command.apply(OrderId(new_id()), now=self._clock.now())
        return self._orders.create(order, key=key, check=self._require_active, then=self._placed)

    def _require_active(self, order: Order) -> None:
        user = self._users.find(UserId(order.user_id))
        if user is None:
            raise OrderingUserNotFound(order.user_id)
        if user.state is not UserState.ACTIVE:
            raise UserNotActive(order.user_id)

    def _placed(self, order: Order) -> None:
        self._tell(order, before=None, reason="")
        if buyer := self._users.find(UserId(order.user_id)):
            self._users.put(dataclasses.replace(buyer, order_count=buyer.order_count + 1))

    async def change_status(self, command: ChangeStatus | CancelOrder, *, key: IdempotencyKey) -> Order:
        """Change the status of an order, as OrderService.change_status() does."""

        def apply(order: Order) -> Order:
            buyer = self._users.find(UserId(order.user_id))
            is_deleted = buyer is not None and buyer.state is UserState.DELETED
            return self._changed(order, dataclasses.replace(command, reason="") if is_deleted else command)

        return self._orders.change(command.order_id, apply, key=key, where=_of(command.owner))

    def _changed(self, order: Order, command: ChangeStatus) -> Order:
        transition = command.apply(order, now=self._clock.now())
        if transition.before:
            self._tell(transition.order, before=transition.before, reason=transition.reason)
        return transition.order

    async def get_order(self, order_id: OrderId, *, owner: BuyerId | None) -> Order:
        """Return an order, as OrderService.get_order() does."""
        return self._orders.get(order_id, where=_of(owner))

    async def list_orders(self, page: PageRequest, *, filters: OrderFilter) -> Page[Order]:
        """Return a page of orders, newest first."""
        is_owned = _of(filters.owner)
        found, has_more = self._orders.newest_first(
            page,
            where=lambda order: (
                is_owned(order) and filters.user_id in {None, order.user_id} and filters.status in {None, order.status}
            ),
        )
        shown: list[Order] = []
        items = 0
        for order in found:
            if items >= _MAX_PAGE_ITEMS:
                break
            shown.append(order)
            items += len(order.items)
        return Page(shown, has_more or len(found) > len(shown))

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

    def _forget_buyer(self, user_id: UserId) -> None:
        """Cancel the open orders of a deleted user and erase what people wrote about them, as the consumer does."""
        orders = [order for order in self._orders if order.user_id == user_id]
        for order in orders:
            current = order
            if OrderStatus.CANCELLED in allowed_transitions(order.status, by=Actor.STAFF):
                current = self._changed(order, CancelOrder(order_id=order.id, owner=None, reason=_DELETED, etag=""))
            if current.cancel_reason != _DELETED:
                current = dataclasses.replace(current, cancel_reason="")
            self._orders.put(current)
            self._history[order.id] = [
                entry if entry.reason == _DELETED else dataclasses.replace(entry, reason="")
                for entry in self._history[order.id]
            ]
        self._orders.answers.erase([order.id for order in orders])

    def _tell(self, order: Order, *, before: OrderStatus | None, reason: str) -> None:
        """Add a version of an order to its history and to the feed."""
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
        self.feed.add(
            FeedEvent(
                position=self.feed.next_position(),
                type="order.created" if before is None else kind,
                subject=order.id,
                sequence=order.version,
                data={} if before is None else {"from": before.value, "to": order.status.value},
                owner=str(order.user_id),
                occurred_at=order.updated_at,
            )
        )


def _of(owner: BuyerId | None) -> Callable[[Order], bool]:
    """Return the condition that an order is this user's; for None, that there is an order."""
    return lambda order: owner in {None, order.user_id}
