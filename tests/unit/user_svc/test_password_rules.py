"""The rules for new passwords, and that the contract lets every password through that they accept."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any, Final

import pytest
from buf.validate import validate_pb2
from shop.user.v1 import session_service_pb2, user_service_pb2

from chassis.errors import InvalidFields
from user_svc.model import MAX_EMAIL
from user_svc.password_rules import MAX_PASSWORD, PasswordRules
from user_svc.settings import PasswordRuleSettings

MESSAGES: Final[list[Any]] = [
    message
    for file in (user_service_pb2.DESCRIPTOR, session_service_pb2.DESCRIPTOR)
    for message in file.message_types_by_name.values()
]
PASSWORDS: Final = {
    field.full_name: field for message in MESSAGES for field in message.fields if field.name.endswith("password")
}
RULES: Final = PasswordRules(PasswordRuleSettings(min_length=15))


def longest_in_nfd() -> int:
    """Return how many characters a character of NFC is in NFD at most."""
    every = map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1)))
    return max(len(unicodedata.normalize("NFD", each)) for each in every if unicodedata.normalize("NFC", each) == each)


@pytest.mark.parametrize("name", PASSWORDS)
def test_the_contract_takes_the_longest_password_in_its_longest_form(name: str) -> None:
    rules = PASSWORDS[name].GetOptions().Extensions[validate_pb2.field].string

    assert rules.max_len == longest_in_nfd() * MAX_PASSWORD


def test_a_log_in_takes_the_longest_email_in_its_longest_form() -> None:
    field = session_service_pb2.CreateSessionRequest.DESCRIPTOR.fields_by_name["email"]

    assert field.GetOptions().Extensions[validate_pb2.field].string.max_len == longest_in_nfd() * MAX_EMAIL


@pytest.mark.parametrize("name", ["CreateUserRequest.password", "ChangePasswordRequest.new_password"])
def test_the_contract_states_no_minimum_of_a_new_password_since_an_operator_sets_it(name: str) -> None:
    rules = PASSWORDS[f"shop.user.v1.{name}"].GetOptions().Extensions[validate_pb2.field].string

    assert rules.min_len == 0


@pytest.mark.parametrize("password", ["p", "p" * 7, "p" * 14])
def test_a_short_password_meets_the_true_minimum_at_once(password: str) -> None:
    with pytest.raises(InvalidFields, match="must be at least 15 characters") as refused:
        RULES.require_acceptable(password, field="password")

    assert [each.rule for each in refused.value.violations] == ["password.min_length"]


@pytest.mark.parametrize("password", ["p" * 128, unicodedata.normalize("NFD", "\u1f82" * 128), "\u0344" * 64])
def test_a_new_password_may_have_128_characters_in_nfc(password: str) -> None:
    RULES.require_acceptable(password, field="password")


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("\u1f82" * 129, "string.max_len"),
        (unicodedata.normalize("NFD", "\u1f82" * 129), "string.max_len"),
        ("\u0344" * 65, "string.max_len"),
    ],
)
def test_a_new_password_is_refused_by_its_length_in_nfc(password: str, rule: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        RULES.require_acceptable(password, field="password")

    assert [(each.field, each.rule) for each in refused.value.violations] == [("password", rule)]
