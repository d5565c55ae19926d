"""The commands of users: what callers ask for. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chassis.clock import new_id
from chassis.errors import InvalidFields
from user_svc.model import User, UserId, UserState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from chassis.context import Role
    from user_svc.model import Email
    from user_svc.sessions.model import SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUser:
    """A user to create."""

    email: Email
    password: str = field(repr=False)
    display_name: str
    profile: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """The fields of a user to change; None leaves a field as it is.

    Attributes:
        current_password: of the user, for a new email; empty if the caller gave none.
    """

    user_id: UserId
    email: Email | None
    display_name: str | None
    profile: Mapping[str, object] | None
    etag: str
    current_password: str = field(repr=False)

    def changed_fields(self) -> list[str]:
        """Return the names of the fields to change, as in the contract's JSON."""
        fields = {
            "email": self.email,
            "displayName": self.display_name,
            "profile": self.profile,
        }
        return [name for name, value in fields.items() if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDeletion:
    """A user to delete; `current_password` as in UserChange."""

    user_id: UserId
    etag: str
    current_password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChange:
    """A password to replace.

    Attributes:
        session_id: the session to keep; None ends all of them.
    """

    user_id: UserId
    current: str = field(repr=False)
    new: str = field(repr=False)
    session_id: SessionId | None


def new_user(new: NewUser, *, roles: tuple[Role, ...], password_hash: str, now: datetime) -> User:
    """Return a new user, in state ACTIVE."""
    return User(
        id=UserId(new_id()),
        email=new.email,
        display_name=new.display_name,
        profile=new.profile,
        state=UserState.ACTIVE,
        roles=roles,
        password_hash=password_hash,
        created_at=now,
        updated_at=now,
        version=1,
    )


def password_needed() -> InvalidFields:
    """Return the error of a change that needs the current password and has none."""
    message = (
        "must be the user's password: a new email and a deletion need it. Over REST a deletion with it is "
        "POST /api/v1/users/{id}:delete"
    )
    return InvalidFields.of("currentPassword", message, "required")
