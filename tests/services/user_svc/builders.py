"""Users with defaults, so that a test shows only the values that matter to it."""

from __future__ import annotations

import dataclasses
from typing import Any
from uuid import UUID

from chassis.context import Role
from tests.support.builders import NOON, SOME_ID
from user_svc.model import Email, User, UserId, UserState


def a_user(**changes: Any) -> User:
    user = User(
        id=UserId(UUID(SOME_ID)),
        email=Email.parse("ada@example.com"),
        display_name="Ada",
        profile={"city": "London"},
        state=UserState.ACTIVE,
        roles=(Role.USER,),
        password_hash="$argon2id$made-up",
        created_at=NOON,
        updated_at=NOON,
        version=1,
    )
    return dataclasses.replace(user, **changes)
