"""Sessions and their refresh tokens. No I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NewType
from uuid import UUID

from chassis.errors import InvalidFields
from user_svc.model import MAX_EMAIL, Email
from user_svc.text import typed

if TYPE_CHECKING:
    from datetime import datetime

    from user_svc.model import UserId

SessionId = NewType("SessionId", UUID)

# A refresh that is repeated within this time is a retry after a lost answer; later, a second holder of the token.
LOST_ANSWER: Final = timedelta(seconds=10)

# Open sessions of one user. A person has fewer devices, and a change of the password must end all others in one
# statement: without a bound, callers who know it could log in until the user cannot change it.
MOST_OPEN: Final = 1000

FREE_ATTEMPTS: Final = 5
LONGEST_WAIT: Final = timedelta(minutes=5)
# After this long an account's failures are forgotten.
FAILURES_KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A user who is logged in, on one device.

    Attributes:
        chain_key: makes each refresh token out of the one before. Secret.
    """

    id: SessionId
    user_id: UserId
    chain_key: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None

    def next_token(self, token: str) -> str:
        """Return the refresh token that follows this one: always the same, so that a lost answer can be repeated.

        It follows from the token and the session's key together, and the key never leaves the database.
        """
        return _text(hmac.digest(self.chain_key, token.encode(), "sha256"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A session and its tokens, as its user gets them. Never logged."""

    session: Session
    access_token: str = field(repr=False)
    access_expires_at: datetime
    refresh_token: str = field(repr=False)


def login_key(email: str) -> str:
    """Return the key of an email; of a text that is none, the text, so that it fails as an unknown email does.

    Raises:
        InvalidFields: it is blank or too long.
    """
    try:
        return Email.parse(email).key
    except InvalidFields:
        return typed(email, field="email", max_length=MAX_EMAIL)


def new_token() -> str:
    """Return the first refresh token of a session: 256 random bits."""
    return _text(secrets.token_bytes(32))


def hash_token(token: str) -> bytes:
    """Return the stored form of a token. Without salt and cost: a random token cannot be guessed."""
    return hashlib.sha256(token.encode()).digest()


def wait_after(failures: int) -> timedelta:
    """Return how long an account's next login must wait after this many failures: 1 s from the fifth, then doubling."""
    if failures < FREE_ATTEMPTS:
        return timedelta(0)
    return min(timedelta(seconds=2 ** min(failures - FREE_ATTEMPTS, 16)), LONGEST_WAIT)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
