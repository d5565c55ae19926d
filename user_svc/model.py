"""Users and their changes. No I/O."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NewType, Self
from uuid import UUID

import idna

from chassis.context import Role
from chassis.errors import InvalidFields
from chassis.versions import Versioned
from user_svc.errors import UserNotActive
from user_svc.text import composed, is_blank, typed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

UserId = NewType("UserId", UUID)

MAX_PROFILE_BYTES: Final = 16 * 1024
MAX_PROFILE_DEPTH: Final = 16
# A number in JSON is a double to most who read it, the edge among them: from 2^53 on, 9007199254740993 comes here as
# 9007199254740992.
MAX_EXACT: Final = 2**53 - 1

# RFC 5321, 4.5.3.1. The whole address is as long as the contract allows.
_MAX_LOCAL_PART: Final = 64
MAX_EMAIL: Final = 254
MAX_DISPLAY_NAME: Final = 100

# Some 0.3 ms in a message.
_MANY_VALUES: Final = 200

# Of keys that are named in an error: no text of any kind or length.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

# After an even number of backslashes: the others escape each other, and `u0000` is just letters.
_NUL_IN_JSON: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class UserState(StrEnum):
    """The state of a user."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Email:
    """An email address.

    Attributes:
        text: as it was typed, in NFC and without white space at its ends.
        key: the same for every way to write the address: the local part in one case, the domain as DNS has it.
    """

    text: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the address.

        Raises:
            InvalidFields: it is none.
        """
        text = typed(text, field="email", max_length=MAX_EMAIL)
        local, at, domain = text.rpartition("@")
        is_plausible = at and 0 < len(local) <= _MAX_LOCAL_PART and "@" not in local
        if not is_plausible or any(is_blank(char) or not char.isprintable() for char in text):
            raise _not_an_email()
        try:
            ascii_domain = idna.encode(domain, uts46=True).decode().lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise _not_an_email() from error
        # With a dot at the end it is the same domain, which would have a second key.
        if "." not in ascii_domain or ascii_domain.endswith("."):
            raise _not_an_email()
        return cls(text=text, key=f"{composed(local.casefold())}@{ascii_domain}")


def _not_an_email() -> InvalidFields:
    return InvalidFields.of("email", "must be an email address, such as ada@example.com", "email")


def require_small_profile(profile: Mapping[str, object]) -> None:
    """Return if the profile can be kept.

    Raises:
        InvalidFields: it is over 16 KiB as JSON without white space and exponents, nested over 16 levels, or holds a
            NUL character, which PostgreSQL's jsonb has not, or a number that is not kept exactly.
    """
    if _depth(profile) > MAX_PROFILE_DEPTH:
        raise InvalidFields.of("profile", f"must be at most {MAX_PROFILE_DEPTH} levels deep", "profile.depth")
    zeros = 0
    for path, number in _numbers(profile, path="profile"):
        if not abs(number) <= MAX_EXACT:  # written so that NaN is refused
            message = f"must be a number from {-MAX_EXACT} to {MAX_EXACT}; send a larger one as text"
            raise InvalidFields.of(path, message, "profile.number")
        zeros += _zeros_written_out(number)
    text = json.dumps(profile, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if len(text.encode()) + zeros > MAX_PROFILE_BYTES:
        raise profile_too_large()
    if _NUL_IN_JSON.search(text):
        raise InvalidFields.of("profile", "must not contain the NUL character", "string.no_nul")


def _numbers(value: object, *, path: str) -> Iterator[tuple[str, int | float]]:
    """Yield every number with its path; a key that is no plain name stands as `*` in it."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _numbers(each, path=f"{path}.{key if _PLAIN_NAME.fullmatch(key) else '*'}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _numbers(each, path=f"{path}[{index}]")
    elif isinstance(value, int | float):
        yield path, value


def _zeros_written_out(number: float) -> int:
    """Return how many characters longer the number is without an exponent, as PostgreSQL writes it.

    5e-324 has 326. Without this bound, 16 KiB of such numbers would be 760 KiB each time the profile is read.
    """
    text = repr(number)
    return len(f"{Decimal(text):f}") - len(text) if "e-" in text else 0


def _depth(value: object) -> int:
    """Return how many levels of objects and lists there are; counts no further than is needed to refuse."""
    depth = 0
    level = [value]
    while level and depth <= MAX_PROFILE_DEPTH:
        children: list[object] = []
        for each in level:
            if isinstance(each, Mapping):
                children.extend(each.values())
            elif isinstance(each, list):
                children.extend(each)
        if not any(isinstance(each, Mapping | list) for each in level):
            return depth
        depth += 1
        level = children
    return depth


def has_many_values(profile: Mapping[str, object]) -> bool:
    """Return whether making the profile's message takes long: it has over 200 values. Counts no further than that."""
    left = _MANY_VALUES
    waiting: list[Any] = [profile]
    while waiting:
        value = waiting.pop()
        children = value.values() if isinstance(value, Mapping) else value
        left -= len(children)
        if left < 0:
            return True
        waiting += [each for each in children if isinstance(each, Mapping | list)]
    return False


def profile_too_large() -> InvalidFields:
    """Return the error of a profile over 16 KiB."""
    message = f"must be at most {MAX_PROFILE_BYTES} bytes as JSON without exponents"
    return InvalidFields.of("profile", message, "profile.size")


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Versioned):
    """A user. A deleted one has only its id left.

    Attributes:
        email: None once deleted.
        profile: JSON; None once deleted.
        password_hash: argon2id in PHC form; empty once deleted.
        order_count: how many orders the user has placed; no change of the user's.
    """

    id: UserId
    email: Email | None
    display_name: str
    profile: Mapping[str, object] | None
    state: UserState
    roles: tuple[Role, ...]
    password_hash: str = field(repr=False)
    order_count: int = 0

    @property
    def email_key(self) -> str:
        """The key of the email address, for which attempts to log in count; empty for a deleted user."""
        return self.email.key if self.email else ""

    def has_password_of(self, earlier: User) -> bool:
        """Return whether the password is still the one of an earlier reading; its hash may be a newer one."""
        # A login that hashes the password anew does not change the user, and so leaves the version.
        return self.password_hash == earlier.password_hash or self.version == earlier.version

    def require_not_deleted(self) -> None:
        """Return if the user can be changed.

        Raises:
            UserNotActive: it is deleted.
        """
        if self.state is UserState.DELETED:
            raise UserNotActive(self.id)

    def changed(
        self,
        *,
        now: datetime,
        email: Email | None = None,
        display_name: str | None = None,
        profile: Mapping[str, object] | None = None,
    ) -> User:
        """Return the user with every field that is not None replaced.

        Raises:
            UserNotActive: it is deleted.
        """
        self.require_not_deleted()
        return dataclasses.replace(
            self,
            email=self.email if email is None else email,
            display_name=self.display_name if display_name is None else display_name,
            profile=self.profile if profile is None else profile,
            updated_at=now,
            version=self.version + 1,
        )

    def with_password(self, password_hash: str, *, now: datetime) -> User:
        """Return the user with another password.

        Raises:
            UserNotActive: it is deleted.
        """
        self.require_not_deleted()
        return dataclasses.replace(self, password_hash=password_hash, updated_at=now, version=self.version + 1)

    def with_role(self, role: Role, *, now: datetime) -> User:
        """Return the user with one more role.

        Raises:
            UserNotActive: it is deleted.
        """
        self.require_not_deleted()
        roles = tuple(each for each in Role if each is role or each in self.roles)
        return dataclasses.replace(self, roles=roles, updated_at=now, version=self.version + 1)

    def deleted(self, *, now: datetime) -> User:
        """Return what is kept of the user: the id, and that there was one."""
        return dataclasses.replace(
            self,
            email=None,
            display_name="",
            profile=None,
            state=UserState.DELETED,
            roles=(),
            password_hash="",
            updated_at=now,
            version=self.version + 1,
        )
