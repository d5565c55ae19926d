"""Amounts of money as decimals, exact."""

from __future__ import annotations

from decimal import Decimal

from order_svc.money import to_decimal, to_money
from protos.client.money_pb2 import Money


def money(amount: Decimal | str | int, currency_code: str = "") -> Money:
    """Return an amount as the contract has it.

    Args:
        amount: with at most nine decimals; no float, which is not exact.
        currency_code: of ISO 4217; empty for the order's.
    """
    priced: Money = to_money(Decimal(amount), currency_code=currency_code)
    return priced


def decimal_of(amount: Money) -> Decimal:
    """Return an amount without its currency, and without zeros at its end: `4.5`."""
    exact = to_decimal(amount)
    whole = exact.to_integral_value()
    return whole if exact == whole else exact.normalize()


__all__ = ["Money", "decimal_of", "money"]
