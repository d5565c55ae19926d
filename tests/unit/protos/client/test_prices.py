"""Prices as decimals."""

from __future__ import annotations

from decimal import Clamped, Context, Decimal, FloatOperation, Inexact, Rounded, Subnormal, localcontext
from typing import Any

import pytest

from protos.client import Money, decimal_of, money


@pytest.mark.parametrize(
    ("text", "units", "nanos"),
    [
        ("0", 0, 0),
        ("4.50", 4, 500_000_000),
        ("12", 12, 0),
        ("0.000000001", 0, 1),
        ("999999999999.99", 999_999_999_999, 990_000_000),
    ],
)
def test_a_decimal_is_units_and_nanos(text: str, units: int, nanos: int) -> None:
    assert money(text, "EUR") == Money(currency_code="EUR", units=units, nanos=nanos)
    assert decimal_of(money(Decimal(text))) == Decimal(text)


@pytest.mark.parametrize(("text", "shown"), [("4.50", "4.5"), ("100", "100"), ("1200.00", "1200"), ("0.10", "0.1")])
def test_a_price_has_no_zeros_at_its_end(text: str, shown: str) -> None:
    assert str(decimal_of(money(text))) == shown


@pytest.mark.parametrize(
    "amount",
    [
        *("0.0000000001", "4.5000000009", "NaN", "sNaN", "-Infinity", "four", ""),
        *("1e19", 2**63, "9223372036854775808", "-9223372036854775809", "1e999999999"),
        *(4.5, 0.1, 4.0, float("inf")),
    ],
)
def test_an_amount_that_is_not_exact_or_too_large_is_refused(amount: Any) -> None:
    with pytest.raises(
        ValueError, match=r"write an amount below 2\^63 with at most nine decimals, such as '4\.50', not "
    ):
        money(amount)


@pytest.mark.parametrize(
    "context",
    [
        Context(prec=3, Emax=6, Emin=-6),
        Context(traps=[Inexact, Rounded, FloatOperation, Subnormal, Clamped]),
        Context(traps=[]),
    ],
    ids=["small", "strict", "lax"],
)
def test_an_amount_does_not_depend_on_the_context_of_the_caller(context: Context) -> None:
    with localcontext(context):
        priced = money("12345678.100000001")
        amounts = [decimal_of(priced), decimal_of(money("4.50"))]
        for wrong in ("1.12345678912", "four", "1e19"):
            with pytest.raises(ValueError, match="nine decimals"):
                money(wrong)

    assert amounts == [Decimal("12345678.100000001"), Decimal("4.5")]


@pytest.mark.parametrize("text", ["-9223372036854775807.999999999", "9223372036854775807.999999999", "1.0000000000"])
def test_no_amount_is_rounded_to_the_precision_of_the_caller(text: str) -> None:
    with localcontext(prec=3):
        priced = money(text)
        amount = decimal_of(priced)

    assert amount == Decimal(text)
