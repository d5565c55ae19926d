"""Amounts as `google.type.Money` and back, exact."""

from decimal import Decimal
from typing import Final

from google.type.money_pb2 import Money

_NANO: Final = Decimal(1).scaleb(-9)


def to_money(amount: Decimal, *, currency_code: str = "") -> Money:
    """Return an amount of at most nine decimals as units and nanos."""
    units = int(amount)
    nanos = 0 if amount == units else int((amount - units) / _NANO)
    return Money(currency_code=currency_code, units=units, nanos=nanos)


def to_decimal(money: Money) -> Decimal:
    """Return the amount, without its currency."""
    return Decimal(money.units) + Decimal(money.nanos) * _NANO
