"""Orders: their items, prices and status. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence  # noqa: TC003  pydantic reads the annotations when it makes snapshots
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  pydantic reads the annotations when it makes snapshots
from decimal import Decimal
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from iso4217 import Currency

from chassis.versions import Versioned
from order_svc.errors import AmountOutOfRange, AmountTooFine, CurrencyMismatch, InvalidStatusTransition, UnknownCurrency

OrderId = NewType("OrderId", UUID)
BuyerId = NewType("BuyerId", UUID)

NOBODY: Final = BuyerId(UUID(int=0))
"""No user has this id."""

# With nine decimals, 10,000 pieces and 100 items a total has at most 27 digits. Decimal keeps 28 exactly, so no amount
# is ever rounded.
PRICE_LIMIT: Final = Decimal(10) ** 12
TOTAL_LIMIT: Final = Decimal(10) ** 15

# The smallest amount of each currency of ISO 4217: 0.01 EUR, 1 JPY. Gold, drawing rights and the codes for tests have
# no minor unit, so they are no currency of an order. CONTRIBUTING.md says how to take a newer list.
MINOR_UNITS: Final[Mapping[str, Decimal]] = {
    each.code: Decimal(1).scaleb(-each.exponent) for each in Currency if each.exponent is not None
}


class OrderStatus(StrEnum):
    """The status of an order."""

    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    PROCESSING = "PROCESSING"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


class Actor(StrEnum):
    """The role in which a caller changes an order's status."""

    OWNER = "OWNER"
    STAFF = "STAFF"


_STAFF_TRANSITIONS: Final[Mapping[OrderStatus, Sequence[OrderStatus]]] = {
    OrderStatus.PENDING: (OrderStatus.CONFIRMED, OrderStatus.CANCELLED),
    OrderStatus.CONFIRMED: (OrderStatus.PROCESSING, OrderStatus.CANCELLED),
    OrderStatus.PROCESSING: (OrderStatus.SHIPPED, OrderStatus.CANCELLED),
    OrderStatus.SHIPPED: (OrderStatus.DELIVERED,),
    OrderStatus.DELIVERED: (),
    OrderStatus.CANCELLED: (),
}
_OWNER_TRANSITIONS: Final[Mapping[OrderStatus, Sequence[OrderStatus]]] = {
    OrderStatus.PENDING: (OrderStatus.CANCELLED,),
    OrderStatus.CONFIRMED: (OrderStatus.CANCELLED,),
}


def allowed_transitions(status: OrderStatus, *, by: Actor) -> Sequence[OrderStatus]:
    """Return the statuses that can follow this one."""
    return _STAFF_TRANSITIONS[status] if by is Actor.STAFF else _OWNER_TRANSITIONS.get(status, ())


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an order. The amounts are in the order's currency, exact.

    Orders from before minor units were checked can have up to nine decimals, and any three letters for a currency.
    """

    product_id: str
    name: str
    quantity: int
    unit_price: Decimal

    @property
    def total_price(self) -> Decimal:
        """The price of the line."""
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True)
class NewItem:
    """One line of an order to place.

    Attributes:
        currency_code: of the price; empty for the order's.
    """

    product_id: str
    name: str
    quantity: int
    unit_price: Decimal
    currency_code: str


def price_items(new: Sequence[NewItem], *, currency_code: str) -> tuple[Item, ...]:
    """Return the items of an order in this currency, each price with as many decimals as its minor unit has.

    Raises:
        UnknownCurrency: ISO 4217 has no such currency, or it has no minor unit.
        CurrencyMismatch: a price is in another one.
        AmountOutOfRange: a price, or the sum of all, is too large.
        AmountTooFine: prices have more decimals than the currency.
    """
    minor_unit = MINOR_UNITS.get(currency_code)
    if minor_unit is None:
        raise UnknownCurrency("currencyCode", currency_code=currency_code)
    items: list[Item] = []
    too_fine: list[str] = []
    for index, each in enumerate(new):
        field = f"items[{index}].unitPrice"
        if each.currency_code not in {"", currency_code}:
            raise CurrencyMismatch(f"{field}.currencyCode", expected=currency_code)
        if each.unit_price >= PRICE_LIMIT:
            raise AmountOutOfRange(field, limit=f"{PRICE_LIMIT:f}")
        price = each.unit_price.quantize(minor_unit)
        if price != each.unit_price:
            too_fine.append(field)
        items.append(Item(each.product_id, each.name, each.quantity, price))
    if too_fine:
        raise AmountTooFine(too_fine, currency_code=currency_code, minor_unit=f"{minor_unit:f}")
    if sum(item.total_price for item in items) >= TOTAL_LIMIT:
        raise AmountOutOfRange("items", limit=f"{TOTAL_LIMIT:f}")
    return tuple(items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Versioned):
    """An order.

    Attributes:
        cancel_reason: empty unless it was cancelled with a reason.
    """

    id: OrderId
    user_id: BuyerId
    status: OrderStatus
    currency_code: str
    items: tuple[Item, ...]
    cancel_reason: str

    @property
    def total_amount(self) -> Decimal:
        """The price of the order, in its currency, exact."""
        return sum((item.total_price for item in self.items), Decimal(0))

    def with_status(self, status: OrderStatus, *, by: Actor, reason: str, now: datetime) -> Order:
        """Return the order in its next status.

        Raises:
            InvalidStatusTransition: this status cannot follow, or this actor may not set it.
        """
        allowed = allowed_transitions(self.status, by=by)
        if status not in allowed:
            raise InvalidStatusTransition(self.id, current=self.status, wanted=status, allowed=allowed)
        return dataclasses.replace(
            self,
            status=status,
            cancel_reason=reason if status is OrderStatus.CANCELLED else "",
            updated_at=now,
            version=self.version + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEvent:
    """One entry of an order's history.

    Attributes:
        from_status: None when the order was placed.
    """

    id: UUID
    order_id: OrderId
    from_status: OrderStatus | None
    to_status: OrderStatus
    reason: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    """Which orders to list or to watch; None filters nothing.

    Attributes:
        owner: whose orders the caller may see.
        user_id: whose orders the caller asks for.
        status: in which status.
    """

    owner: BuyerId | None
    user_id: BuyerId | None
    status: OrderStatus | None = None

    @property
    def buyer(self) -> BuyerId | None:
        """The buyer of the orders; None for every buyer.

        A caller who asks for the orders of another user gets an empty list rather than an error: the answer does not
        reveal whether the user exists.
        """
        if self.owner is not None and self.user_id not in {None, self.owner}:
            return NOBODY
        return self.owner or self.user_id
