"""The rules of the contract at their bounds: the last value that is accepted and the first that is refused.

The requests are in the `bounds.py` of each service's tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.errors import InvalidFields
from chassis.server.validation import require_valid
from tests.support.guards import modules
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from google.protobuf.message import Message

ACCEPTED: list[Message] = [each for module in modules("bounds") for each in module.ACCEPTED]
REFUSED: list[tuple[Message, str, str]] = [each for module in modules("bounds") for each in module.REFUSED]


@pytest.mark.parametrize("request_", ACCEPTED, ids=lambda message: type(message).__name__)
def test_a_valid_request_is_accepted(request_: Message) -> None:
    require_valid(request_)


@pytest.mark.parametrize(
    ("request_", "field", "rule"), REFUSED, ids=[f"{type(each).__name__}-{rule}" for each, _, rule in REFUSED]
)
def test_a_violation_is_named_by_field_and_rule(request_: Message, field: str, rule: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(request_)

    assert [(each.field, each.rule) for each in refused.value.violations] == [(field, rule)]


def test_all_violations_are_reported_together() -> None:
    request = create_user_request(email="", password="", display_name="")

    with pytest.raises(InvalidFields) as refused:
        require_valid(request)

    assert {each.field for each in refused.value.violations} == {"email", "password", "displayName"}


def test_a_refusal_does_not_repeat_a_password() -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(create_user_request(password="hunter2" * 100))

    assert "hunter2" not in refused.value.message
