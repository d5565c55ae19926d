"""The commands of callers, and their outcome. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from typing_extensions import override

from chassis.errors import InvalidFields
from order_svc.errors import OrderingUserNotFound
from order_svc.model import Actor, BuyerId, Order, OrderStatus, price_items

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from order_svc.model import NewItem, OrderId


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """Place an order.

    Attributes:
        user_id: the buyer that the request names; None for the caller.
        caller: the id of the user who calls; empty if the caller is no user.
        owner: the only user for whom the caller may order; None for any.
        items: at least one.
    """

    user_id: BuyerId | None
    caller: str
    owner: BuyerId | None
    currency_code: str
    items: Sequence[NewItem]

    def apply(self, order_id: OrderId, *, now: datetime) -> Order:
        """Return the order, in status PENDING.

        Raises:
            OrderingUserNotFound: the caller may not order for the buyer.
            InvalidFields: no buyer is named, and the caller is no user; or as price_items().
            CurrencyMismatch, AmountOutOfRange: as price_items().
        """
        return Order(
            id=order_id,
            user_id=self._buyer(),
            status=OrderStatus.PENDING,
            currency_code=self.currency_code,
            items=price_items(self.items, currency_code=self.currency_code),
            cancel_reason="",
            created_at=now,
            updated_at=now,
            version=1,
        )

    def _buyer(self) -> BuyerId:
        if self.user_id is None and not self.caller:
            raise InvalidFields.of("userId", "must be given by a caller who is no user")
        if self.user_id is None:
            return BuyerId(UUID(self.caller))
        if self.owner not in {None, self.user_id}:
            raise OrderingUserNotFound(self.user_id)
        return self.user_id


@dataclass(frozen=True, slots=True)
class Transition:
    """An order after a request to change its status.

    Attributes:
        before: the status before. None if this request changed nothing: it was a repetition, or the order had the
            status already.
        reason: of the change, for the history.
    """

    order: Order
    before: OrderStatus | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStatus:
    """Change the status of an order, as staff do.

    Attributes:
        owner: the only user whose orders the caller may change; None for any.
        etag: of the version that the caller saw; empty for any version.
    """

    order_id: OrderId
    owner: BuyerId | None
    status: OrderStatus
    reason: str
    etag: str

    def apply(self, order: Order, *, now: datetime) -> Transition:
        """Return the order in its next status.

        Raises:
            InvalidStatusTransition: the order cannot change to it.
            EtagMismatch: the order has changed since.
        """
        return self._transition(order, by=Actor.STAFF, now=now)

    def _transition(self, order: Order, *, by: Actor, now: datetime) -> Transition:
        order.require_etag(self.etag)
        changed = order.with_status(self.status, by=by, reason=self.reason, now=now)
        return Transition(changed, before=order.status, reason=self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder(ChangeStatus):
    """Cancel an order, as its owner or as staff. A cancelled order stays as it is, whatever the etag."""

    status: OrderStatus = OrderStatus.CANCELLED

    @override
    def apply(self, order: Order, *, now: datetime) -> Transition:
        """Return the order, cancelled. Raises what ChangeStatus.apply() does."""
        if order.status is OrderStatus.CANCELLED:
            return Transition(order)
        return self._transition(order, by=Actor.OWNER if self.owner else Actor.STAFF, now=now)
