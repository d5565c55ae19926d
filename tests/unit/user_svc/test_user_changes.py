from __future__ import annotations

import dataclasses
import json
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.context import Role
from chassis.errors import InvalidFields
from tests.services.user_svc.builders import a_user
from tests.support.builders import NOON
from user_svc.errors import UserNotActive
from user_svc.model import Email, User, UserState, has_many_values, require_small_profile

LATER = NOON + timedelta(hours=1)
NUL = chr(0)


def nested(levels: int, *, leaf: object = 1) -> dict[str, object]:
    """Return objects and lists in turn, this many levels of them."""
    value = leaf
    for level in range(levels - 1):
        value = [value] if level % 2 else {"k": value}
    return {"k": value}


def of_size(size: int) -> dict[str, object]:
    """Return a profile of this many bytes as JSON without white space."""
    empty = len(json.dumps({"k": ""}, separators=(",", ":")))
    return {"k": "x" * (size - empty)}


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"k": None, "l": [1, 2.5, "x", True, {}]},
        nested(16),
        nested(16, leaf="x"),
        of_size(16 * 1024),
        {"k": "é" * 8000},
        {"k": r"\u0000 in letters, as a text about JSON has it"},
        {"k": "5e-324 " * 1000},
        {"k": [5e-324] * 49},
    ],
)
def test_a_small_profile_is_accepted(profile: dict[str, object]) -> None:
    require_small_profile(profile)


@pytest.mark.parametrize(
    ("profile", "rule"),
    [
        (nested(17), "profile.depth"),
        (nested(16, leaf={}), "profile.depth"),
        (nested(16, leaf=[]), "profile.depth"),
        (nested(900), "profile.depth"),
        (of_size(16 * 1024 + 1), "profile.size"),
        ({"k": "é" * 8200}, "profile.size"),
        ({str(n): n for n in range(5000)}, "profile.size"),
        ({"k": [5e-324] * 51}, "profile.size"),
        ({"k": [-1.5e-300] * 100}, "profile.size"),
        ({"k": f"a{NUL}b"}, "string.no_nul"),
        ({f"a{NUL}b": 1}, "string.no_nul"),
        ({"k": [{"l": NUL}]}, "string.no_nul"),
        ({"k": "\\" + NUL}, "string.no_nul"),
    ],
)
def test_a_value_that_cannot_be_stored_is_an_invalid_field(profile: dict[str, object], rule: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_small_profile(profile)

    assert [(each.field, each.rule) for each in refused.value.violations] == [("profile", rule)]


whole_numbers = st.integers(-(10**30), 10**30) | st.integers(2**53 - 3, 2**53 + 3)


@given(whole_numbers, whole_numbers)
def test_a_whole_number_is_kept_exactly_or_refused_by_its_path(number: int, other: int) -> None:
    # As it comes: JSON's numbers are doubles.
    profile = {"plain": {"a": ["x", float(number)]}, "two words": [{"b": float(other)}]}
    wrong = [path for path, each in [("profile.plain.a[1]", number), ("profile.*[0].b", other)] if abs(each) >= 2**53]

    if not wrong:
        require_small_profile(profile)
        assert (float(number), float(other)) == (number, other)
        return
    with pytest.raises(InvalidFields, match="as text") as refused:
        require_small_profile(profile)
    assert [(each.field, each.rule) for each in refused.value.violations] == [(wrong[0], "profile.number")]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_number_that_cannot_be_kept_is_refused_by_its_path(number: float) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_small_profile({"k": [True, number]})

    assert [(each.field, each.rule) for each in refused.value.violations] == [("profile.k[1]", "profile.number")]


@given(st.lists(st.floats(-1e15, 1e15) | st.floats(1e-300, 1e-4), min_size=1, max_size=10), st.integers(1, 300))
def test_a_profile_that_is_kept_is_small_as_postgresql_writes_it(some: list[float], times: int) -> None:
    numbers = some * times
    text = json.dumps({"k": numbers}, separators=(",", ":"))
    without_exponents = re.sub(r"[\d.]+e-\d+", lambda found: f"{Decimal(found[0]):f}", text)

    try:
        require_small_profile({"k": numbers})
    except InvalidFields:
        assert len(without_exponents) > 16 * 1024
    else:
        assert len(without_exponents) <= 16 * 1024


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({}, False),
        ({"k": None, "l": [1, {"m": [2]}]}, False),
        ({"k": [1] * 199}, False),
        ({"k": [1] * 200}, True),
        ({"k": [[1] * 50] * 5}, True),
        ({str(n): n for n in range(201)}, True),
        (nested(16), False),
    ],
)
def test_a_profile_has_many_values_or_few(profile: dict[str, object], *, expected: bool) -> None:
    assert has_many_values(profile) is expected


@pytest.mark.parametrize("key", ["", "two words", "a.b", "k" * 65, "é", "ada@example.com"])
def test_a_key_that_is_not_a_plain_name_is_not_quoted_in_the_error(key: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_small_profile({key: 2.0**53})

    assert refused.value.metadata == {"fields": "profile.*"}


@pytest.mark.parametrize(
    "change",
    [{"email": Email.parse("grace@example.com")}, {"display_name": "Grace"}, {"display_name": ""}, {"profile": {}}],
)
def test_a_change_replaces_the_given_fields_only(change: dict[str, Any]) -> None:
    user = a_user()

    changed = user.changed(now=LATER, **change)

    assert changed == dataclasses.replace(user, **change, updated_at=LATER, version=2)


def test_another_password_changes_the_version() -> None:
    changed = a_user().with_password("$argon2id$another", now=LATER)

    assert changed == a_user(password_hash="$argon2id$another", updated_at=LATER, version=2)


def test_deletion_erases_everything_personal() -> None:
    user = a_user(email=Email.parse("Ada@Example.com"), display_name="Ada", profile={"city": "London"})

    deleted = user.deleted(now=LATER)

    assert {name: value for name, value in dataclasses.asdict(deleted).items() if value} == {
        "id": user.id,
        "state": UserState.DELETED,
        "created_at": NOON,
        "updated_at": LATER,
        "version": 2,
    }


def test_a_deleted_user_cannot_be_changed() -> None:
    deleted = a_user().deleted(now=NOON)

    with pytest.raises(UserNotActive):
        deleted.changed(now=LATER, display_name="Ada")
    with pytest.raises(UserNotActive):
        deleted.with_password("$argon2id$another", now=LATER)


def test_a_suspended_user_can_be_changed() -> None:
    changed = a_user(state=UserState.SUSPENDED).changed(now=LATER, display_name="Grace")

    assert changed.state is UserState.SUSPENDED


def test_every_change_makes_another_etag() -> None:
    user = a_user()

    versions: list[User] = [
        user,
        (changed := user.changed(now=LATER, display_name="Ada")),
        (rekeyed := changed.with_password("$argon2id$another", now=LATER)),
        rekeyed.deleted(now=LATER),
    ]

    assert len({each.etag for each in versions}) == len(versions)


@pytest.mark.parametrize("before", [(Role.USER,), (Role.USER, Role.SUPPORT), (Role.USER, Role.ADMIN)])
def test_a_new_role_is_added_to_the_users_roles(before: tuple[Role, ...]) -> None:
    user = a_user(roles=before, version=3)

    admin = user.with_role(Role.ADMIN, now=LATER)

    assert set(admin.roles) == {*before, Role.ADMIN}
    assert len(admin.roles) == len(set(admin.roles))
    assert dataclasses.replace(user, roles=admin.roles, updated_at=LATER, version=4) == admin


def test_a_deleted_user_gets_no_role() -> None:
    with pytest.raises(UserNotActive):
        a_user().deleted(now=LATER).with_role(Role.ADMIN, now=LATER)
