from __future__ import annotations

from uuid import UUID

import pytest

from order_svc.model import NOBODY, BuyerId, OrderFilter
from tests.support.builders import OTHER_ID, SOME_ID

ME = BuyerId(UUID(SOME_ID))
ANOTHER = BuyerId(UUID(OTHER_ID))


@pytest.mark.parametrize(
    ("owner", "user_id", "buyer"),
    [
        (None, None, None),
        (None, ANOTHER, ANOTHER),
        (ME, None, ME),
        (ME, ME, ME),
        (ME, ANOTHER, NOBODY),
    ],
    ids=["staff, all", "staff, one user's", "a user", "a user, their own", "a user, another's"],
)
def test_an_owner_sees_their_own_orders_and_staff_whose_they_ask_for(
    owner: BuyerId | None, user_id: BuyerId | None, buyer: BuyerId | None
) -> None:
    assert OrderFilter(owner=owner, user_id=user_id).buyer == buyer
