"""Money of every currency that ISO 4217 has, and of every three letters that are none."""

from __future__ import annotations

import itertools
import string
from decimal import Decimal
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from chassis.errors import InvalidFields
from order_svc.events import order_created
from order_svc.model import PRICE_LIMIT, price_items
from order_svc.money import to_money
from tests.services.order_svc.builders import a_new_item, an_order

# The decimals of each minor unit.
DECIMALS: Final = {each.code: each.exponent for each in Currency if each.exponent is not None}
WITHOUT_MINOR_UNIT: Final = sorted(each.code for each in Currency if each.exponent is None)
NO_CURRENCY: Final = [
    code for code in map("".join, itertools.product(string.ascii_uppercase, repeat=3)) if code not in DECIMALS
]


def refusal_of(price: Decimal, *, currency_code: str) -> InvalidFields | None:
    try:
        price_items([a_new_item(unit_price=price)], currency_code=currency_code)
    except InvalidFields as refusal:
        return refusal
    return None


def test_the_list_has_the_well_known_currencies() -> None:
    known = {"EUR": 2, "USD": 2, "HUF": 2, "JPY": 0, "KRW": 0, "ISK": 0, "KWD": 3, "BHD": 3, "TND": 3, "CLF": 4}

    assert {code: DECIMALS[code] for code in known} == known
    assert {"XAU", "XDR", "XTS", "XXX"} <= set(WITHOUT_MINOR_UNIT)
    assert len(DECIMALS) > 150
    assert not {"ZZZ", "DEM", "HRK"} & set(DECIMALS)


def test_an_invalid_currency_is_an_invalid_field() -> None:
    for code in ["", "eur", "EURO", *NO_CURRENCY]:
        with pytest.raises(InvalidFields) as refused:
            price_items([a_new_item(unit_price=Decimal(1))], currency_code=code)

        assert [(each.field, each.rule) for each in refused.value.violations] == [
            ("currencyCode", "currency_code.iso_4217")
        ]
        assert refused.value.metadata == {"fields": "currencyCode", "currencyCode": code}


@pytest.mark.parametrize("code", DECIMALS)
def test_a_price_is_a_multiple_of_its_currencys_minor_unit(code: str) -> None:
    minor_unit = Decimal(1).scaleb(-DECIMALS[code])
    new = [a_new_item(unit_price=price, quantity=1) for price in (Decimal(0), minor_unit, PRICE_LIMIT - minor_unit)]

    items = price_items(new, currency_code=code)

    assert [item.unit_price for item in items] == [each.unit_price for each in new]


@pytest.mark.parametrize("code", DECIMALS)
def test_a_price_with_more_decimals_than_its_currency_is_refused_by_its_field(code: str) -> None:
    for decimals in range(DECIMALS[code] + 1, 10):
        fine = Decimal(1).scaleb(-decimals)
        new = [a_new_item(unit_price=price, quantity=1) for price in (fine, Decimal(7), 5 * fine, 1 + 9 * fine)]

        with pytest.raises(InvalidFields) as refused:
            price_items(new, currency_code=code)

        fields = ["items[0].unitPrice", "items[2].unitPrice", "items[3].unitPrice"]
        assert [(each.field, each.rule) for each in refused.value.violations] == [
            (field, "money.minor_unit") for field in fields
        ]
        minor_unit = f"{Decimal(1).scaleb(-DECIMALS[code]):f}"
        assert refused.value.metadata == {
            "fields": ",".join(fields),
            "currencyCode": code,
            "minorUnit": minor_unit,
        }
        assert f"multiple of {minor_unit} {code}" in refused.value.message


@given(st.decimals(min_value=0, max_value=PRICE_LIMIT / 10**6, places=9), st.sampled_from(sorted(DECIMALS)))
def test_a_price_is_kept_exactly_or_refused(price: Decimal, code: str) -> None:
    is_multiple = (price * 10 ** DECIMALS[code]) % 1 == 0

    assert (refusal_of(price, currency_code=code) is None) == is_multiple


@given(st.integers(0, 10**9), st.integers(1, 10_000), st.sampled_from(sorted(DECIMALS)))
def test_every_amount_has_the_decimals_of_its_currency(minor_units: int, quantity: int, code: str) -> None:
    price = Decimal(minor_units).scaleb(-DECIMALS[code])
    # Nine decimals, as an amount comes from the wire.
    items = price_items([a_new_item(unit_price=price + Decimal("0E-9"), quantity=quantity)], currency_code=code)
    order = an_order(items=items, currency_code=code)

    told = order_created(order).data
    amount, total = str(told["amount"]), to_money(order.total_amount, currency_code=code)

    assert Decimal(amount) == quantity * price
    assert -Decimal(amount).as_tuple().exponent == DECIMALS[code]
    assert told["total"] == {"units": str(total.units), "nanos": total.nanos}
    assert total.nanos % 10 ** (9 - DECIMALS[code]) == 0
