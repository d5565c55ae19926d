from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_svc.errors import AmountOutOfRange, CurrencyMismatch
from order_svc.model import PRICE_LIMIT, TOTAL_LIMIT, NewItem, price_items
from order_svc.money import to_money
from order_svc.rpc import _new_item
from tests.services.order_svc.builders import a_new_item, an_order
from tests.services.order_svc.placing import create_order_request, order_item

# Of all currencies, that with the smallest minor unit.
FINEST = "CLF"
SMALLEST = Decimal("0.0001")
NANO = Decimal("0.000000001")

# As large as a price may be, so that the sums use every digit there is.
prices = st.decimals(min_value=0, max_value=PRICE_LIMIT - SMALLEST, places=4)
quantities = st.integers(1, 10_000)
new_items = st.builds(NewItem, st.just("sku"), st.just(""), quantities, prices, st.sampled_from(["", FINEST]))


def exact(amount: Decimal) -> Fraction:
    return Fraction(*amount.as_integer_ratio())


@given(st.lists(new_items, min_size=1, max_size=100))
def test_the_total_is_exact_or_refused(new: list[NewItem]) -> None:
    expected = sum((each.quantity * exact(each.unit_price) for each in new), Fraction(0))

    try:
        order = an_order(items=price_items(new, currency_code=FINEST))
    except AmountOutOfRange:
        assert expected >= 10**15
    else:
        assert expected < 10**15
        assert exact(order.total_amount) == expected


@given(prices, quantities)
def test_a_line_costs_exactly_its_quantity_times_its_price(price: Decimal, quantity: int) -> None:
    unit_price = price.quantize(Decimal(1)) / 10_000

    item = price_items([a_new_item(unit_price=unit_price, quantity=quantity)], currency_code=FINEST)[0]

    assert exact(item.total_price) == quantity * exact(unit_price)


def test_the_largest_order_there_can_be_keeps_every_digit() -> None:
    almost = Decimal("999999999.9999")

    order = an_order(items=price_items([a_new_item(unit_price=almost, quantity=10_000)] * 100, currency_code=FINEST))

    assert order.total_amount == Decimal("999999999999900.0000")


@pytest.mark.parametrize(
    ("price", "is_within"),
    [(Decimal(0), True), (PRICE_LIMIT - SMALLEST, True), (PRICE_LIMIT, False), (Decimal(2**63 - 1), False)],
)
def test_a_price_is_below_a_million_million(price: Decimal, *, is_within: bool) -> None:
    new = [a_new_item(), a_new_item(unit_price=price, quantity=1)]

    if is_within:
        assert price_items(new, currency_code=FINEST)[1].unit_price == price
    else:
        with pytest.raises(AmountOutOfRange) as refused:
            price_items(new, currency_code=FINEST)
        assert [each.field for each in refused.value.violations] == ["items[1].unitPrice"]


def test_a_total_may_come_as_close_to_the_limit_as_a_minor_unit() -> None:
    new = [
        a_new_item(unit_price=PRICE_LIMIT - 1, quantity=1000),
        a_new_item(unit_price=Decimal(1000) - SMALLEST, quantity=1),
    ]

    order = an_order(items=price_items(new, currency_code=FINEST))

    assert order.total_amount == TOTAL_LIMIT - SMALLEST


def test_a_total_at_the_limit_is_refused() -> None:
    new = [
        a_new_item(unit_price=PRICE_LIMIT - 1, quantity=1000),
        a_new_item(unit_price=Decimal(1000), quantity=1),
    ]

    with pytest.raises(AmountOutOfRange) as refused:
        price_items(new, currency_code="EUR")

    assert [each.field for each in refused.value.violations] == ["items"]


@given(st.integers(0, 99))
def test_a_price_in_another_currency_is_named_by_its_index(index: int) -> None:
    new = [a_new_item(currency_code="EUR")] * 100
    new[index] = a_new_item(currency_code="USD")

    with pytest.raises(CurrencyMismatch) as refused:
        price_items(new, currency_code="EUR")

    assert [each.field for each in refused.value.violations] == [f"items[{index}].unitPrice.currencyCode"]


def test_a_price_without_a_currency_is_in_the_orders() -> None:
    items = price_items([a_new_item(currency_code="")], currency_code="EUR")

    assert len(items) == 1


@given(st.integers(0, 2**63 - 1), st.integers(0, 999_999_999))
def test_a_price_on_the_wire_is_read_exactly(units: int, nanos: int) -> None:
    [message] = create_order_request(items=[order_item(units=units, nanos=nanos)]).items

    price = _new_item(message).unit_price

    assert exact(price) == units + Fraction(nanos, 10**9)


@given(st.decimals(min_value=0, max_value=TOTAL_LIMIT - NANO, places=9))
def test_an_amount_is_written_to_the_wire_exactly(amount: Decimal) -> None:
    money = to_money(amount, currency_code="EUR")

    assert money.units + Fraction(money.nanos, 10**9) == exact(amount)
    assert 0 <= money.nanos <= 999_999_999
    assert money.currency_code == "EUR"
