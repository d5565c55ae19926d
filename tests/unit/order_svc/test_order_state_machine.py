"""An order moved about at random, against the table of the contract."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from order_svc.errors import InvalidStatusTransition
from order_svc.model import Actor, OrderStatus, allowed_transitions
from tests.services.order_svc.builders import an_order
from tests.support.builders import NOON, SOME_ID

# The contract's table, written down a second time on purpose: (from, to) → who may.
STAFF = {"STAFF"}
BOTH = {"OWNER", "STAFF"}
CONTRACT: dict[tuple[str, str], set[str]] = {
    ("PENDING", "CONFIRMED"): STAFF,
    ("PENDING", "CANCELLED"): BOTH,
    ("CONFIRMED", "PROCESSING"): STAFF,
    ("CONFIRMED", "CANCELLED"): BOTH,
    ("PROCESSING", "SHIPPED"): STAFF,
    ("PROCESSING", "CANCELLED"): STAFF,
    ("SHIPPED", "DELIVERED"): STAFF,
}


class OrderLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.order = an_order()
        self.placed = self.order
        self.now = NOON
        self.moves = 0
        self.expected_status = "PENDING"
        self.expected_reason = ""

    @rule(wanted=st.sampled_from(OrderStatus), by=st.sampled_from(Actor), reason=st.text(max_size=20))
    def move(self, wanted: OrderStatus, by: Actor, reason: str) -> None:
        self.now += timedelta(seconds=1)
        if by.value in CONTRACT.get((self.expected_status, wanted.value), set()):
            self.order = self.order.with_status(wanted, by=by, reason=reason, now=self.now)
            self.moves += 1
            self.expected_status = wanted.value
            self.expected_reason = reason if wanted.value == "CANCELLED" else ""
        else:
            self.must_refuse(wanted, by, reason)

    @rule(by=st.sampled_from(Actor))
    def go_on_as_far_as_the_model_lets(self, by: Actor) -> None:
        # Random moves alone are mostly refusals; this one reaches the far end.
        allowed = allowed_transitions(self.order.status, by=by)
        if allowed:
            self.move(allowed[0], by, "")

    def must_refuse(self, wanted: OrderStatus, by: Actor, reason: str) -> None:
        before = self.order

        with pytest.raises(InvalidStatusTransition) as refused:
            self.order.with_status(wanted, by=by, reason=reason, now=self.now)

        may = {to for (start, to), who in CONTRACT.items() if start == self.expected_status and by.value in who}
        facts = refused.value.metadata
        assert (facts["from"], facts["to"]) == (self.expected_status, wanted.value)
        assert set(filter(None, facts["allowed"].split(","))) == may
        assert self.order == before

    @invariant()
    def it_is_where_the_contract_says(self) -> None:
        assert self.order.status.value == self.expected_status
        assert self.order.cancel_reason == self.expected_reason

    @invariant()
    def every_move_and_no_refusal_changes_the_version(self) -> None:
        assert self.order.version == 1 + self.moves
        assert (self.order.updated_at > self.placed.updated_at) == (self.moves > 0)

    @invariant()
    def what_was_bought_never_changes(self) -> None:
        for name in ("id", "user_id", "currency_code", "items", "total_amount", "created_at"):
            assert getattr(self.order, name) == getattr(self.placed, name)


TestOrderLife = OrderLife.TestCase
TestOrderLife.settings = settings(max_examples=60, stateful_step_count=20)


@pytest.mark.parametrize("by", Actor)
@pytest.mark.parametrize("wanted", OrderStatus)
@pytest.mark.parametrize("start", OrderStatus)
def test_every_transition_is_as_the_contract_says(start: OrderStatus, wanted: OrderStatus, by: Actor) -> None:
    order = an_order(status=start)
    is_allowed = by.value in CONTRACT.get((start.value, wanted.value), set())

    try:
        moved = order.with_status(wanted, by=by, reason="", now=NOON)
    except InvalidStatusTransition:
        assert not is_allowed
    else:
        assert is_allowed
        assert moved.status is wanted


def test_a_transition_from_the_end_allows_nothing() -> None:
    error = InvalidStatusTransition(UUID(SOME_ID), current="DELIVERED", wanted="PENDING", allowed=[])

    assert error.metadata["allowed"] == ""
    assert "no longer" in error.message
