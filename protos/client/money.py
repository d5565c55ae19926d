"""Amounts of money as decimals, exact."""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation, localcontext
from typing import Final

from order_svc.money import to_decimal, to_money
from protos.client.money_pb2 import Money

# Units are 64 bits, which are 19 digits, and nanos are nine more.
_DIGITS: Final = 28
_NANO: Final = Decimal("1e-9")


def money(amount: Decimal | str | int, currency_code: str = "") -> Money:
    """Return an amount as the contract has it.

    Args:
        amount: with at most nine decimals; no float, which is not exact.
        currency_code: of ISO 4217; empty for the order's.

    Raises:
        ValueError: the amount is a float or no number, has more decimals, or is too large for 64 bits.
    """
    if isinstance(amount, float):
        raise _wrong(amount)
    with localcontext(_exact()):
        try:
            exact = Decimal(amount)
            rounded = exact.quantize(_NANO)
            priced: Money = to_money(exact, currency_code=currency_code)
        except (InvalidOperation, ValueError, OverflowError):  # no number, or more than protobuf's 64 bits
            raise _wrong(amount) from None
        if rounded != exact:
            raise _wrong(amount)
        return priced


def _exact() -> Context:
    """Return a context that does not depend on the caller's, which may round to fewer digits or refuse to."""
    return Context(prec=_DIGITS, traps=[InvalidOperation])


def _wrong(amount: object) -> ValueError:
    return ValueError(f"write an amount below 2^63 with at most nine decimals, such as '4.50', not {amount!r}")


def decimal_of(amount: Money) -> Decimal:
    """Return an amount without its currency, and without zeros at its end: `4.5`."""
    with localcontext(_exact()):
        exact = to_decimal(amount)
        whole = exact.to_integral_value()
        return whole if exact == whole else exact.normalize()


__all__ = ["Money", "decimal_of", "money"]
