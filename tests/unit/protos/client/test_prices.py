"""Prices as decimals."""

from __future__ import annotations

from decimal import Decimal

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
