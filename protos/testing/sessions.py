"""The use cases of sessions, in memory: the same outcomes as `user_svc.sessions.service`; and the access tokens."""

from __future__ import annotations

import dataclasses
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chassis.auth.claims import ALGORITHM, TYPE, Claims
from chassis.clock import new_id
from chassis.context import Caller, Role
from chassis.errors import TokenExpired, TokenInvalid
from user_svc.errors import InvalidCredentials, TokenReused
from user_svc.model import UserState
from user_svc.sessions.model import (
    LOST_ANSWER,
    LoggedIn,
    RefreshToken,
    Session,
    SessionId,
    hash_token,
    login_key,
    new_token,
)
from user_svc.text import typed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from chassis.auth.access_tokens import TokenSettings
    from chassis.clock import Clock
    from protos.testing.passwords import Attempts
    from protos.testing.users import UsersInMemory
    from user_svc.model import User, UserId

# The defaults of the user service.
ACCESS_LIFETIME: Final = timedelta(minutes=15)
_SESSION_LIFETIME: Final = timedelta(days=30)
_LEEWAY: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class _TokenSettings:
    issuer: str = "https://shop.local"
    audience: str = "shop"
    client_id: str = "shop"


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    public: Ed25519PublicKey


class TokensInMemory:
    """Issues access tokens and knows them again. They are signed: an app may verify them with the keys of GetJwks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._private = Ed25519PrivateKey.generate()
        self._key = _Key(secrets.token_hex(8), self._private.public_key())
        self._issued: dict[str, tuple[Caller, datetime]] = {}

    def issue(self, subject: UUID, *, roles: Sequence[Role], session_id: UUID, lifetime: timedelta) -> str:
        """Return a new token, which expires by the clock."""
        now = self._clock.now()
        claims = Claims(
            subject=subject,
            session_id=session_id,
            roles=tuple(roles),
            token_id=new_id(),
            issued_at_s=int(now.timestamp()),
            lifetime_s=round(lifetime.total_seconds()),
        )
        header = {"kid": self._key.kid, "typ": TYPE}
        payload = claims.payload(cast("TokenSettings", _TokenSettings()))
        token = jwt.encode(payload, self._private, algorithm=ALGORITHM, headers=header)
        caller = Caller(subject=str(subject), session_id=str(session_id), roles=frozenset(roles))
        self._issued[token] = (caller, now + lifetime)
        return token

    async def caller(self, token: str) -> Caller:
        """Return the caller that a token identifies.

        Raises:
            TokenExpired: the token was valid and has expired.
            TokenInvalid: the token is not one of this shop's.
        """
        if token not in self._issued:
            raise TokenInvalid
        caller, expires_at = self._issued[token]
        left = expires_at + _LEEWAY - self._clock.now()
        if left <= timedelta(0):
            raise TokenExpired
        return dataclasses.replace(caller, expires_at_s=time.time() + left.total_seconds())

    async def published(self) -> Sequence[_Key]:
        """Return the keys that tokens can be verified with."""
        return [self._key]


class SessionsInMemory:
    """The sessions of a shop. Its methods are those of SessionService."""

    def __init__(self, users: UsersInMemory, attempts: Attempts, tokens: TokensInMemory, clock: Clock) -> None:
        self._users = users
        self._attempts = attempts
        self._tokens = tokens
        self._clock = clock
        self._sessions: dict[SessionId, Session] = {}
        self._refresh_tokens: dict[bytes, RefreshToken] = {}

    async def log_in(self, *, email: str, password: str) -> LoggedIn:
        """Begin a session, as SessionService.log_in() does."""
        key = login_key(typed(email, field="email"))
        user = self._users.find_by_email(key)
        password_hash = user.password_hash if user and user.state is UserState.ACTIVE else ""
        is_correct = self._attempts.is_correct(password, password_hash=password_hash, account=key)
        if user is None or not is_correct:
            raise InvalidCredentials
        return self.begin(user)

    def begin(self, user: User) -> LoggedIn:
        """Return a new session of a user."""
        now = self._clock.now()
        session = Session(
            id=SessionId(new_id()),
            user_id=user.id,
            chain_key=secrets.token_bytes(32),
            created_at=now,
            expires_at=now + _SESSION_LIFETIME,
        )
        token = new_token()
        self._sessions[session.id] = session
        self._refresh_tokens[hash_token(token)] = RefreshToken(hash_token(token), session.id, None)
        return self._logged_in(session, user, refresh_token=token)

    async def refresh(self, token: str) -> LoggedIn:
        """Exchange a refresh token for the next one, as SessionService.refresh() does."""
        now = self._clock.now()
        kept = self._refresh_tokens.get(hash_token(token))
        if kept is None:
            raise TokenInvalid
        session = self._sessions[kept.session_id]
        if session.ended_at is not None:
            raise TokenInvalid
        if session.expires_at <= now:
            raise TokenExpired
        successor = session.next_token(token)
        if kept.used_at is None:
            self._refresh_tokens[kept.token_hash] = dataclasses.replace(kept, used_at=now)
            self._refresh_tokens[hash_token(successor)] = RefreshToken(hash_token(successor), session.id, None)
        elif now - kept.used_at > LOST_ANSWER or self._refresh_tokens[hash_token(successor)].used_at is not None:
            self._end(session)
            raise TokenReused
        user = self._users.find(session.user_id)
        if user is None or user.state is not UserState.ACTIVE:
            raise TokenInvalid
        return self._logged_in(session, user, refresh_token=successor)

    async def log_out(self, session_id: SessionId, *, owner: UserId | None) -> None:
        """End a session. Does nothing if it has ended, belongs to another user, or never existed."""
        session = self._sessions.get(session_id)
        if session is not None and owner in {None, session.user_id}:
            self._end(session)

    def end_sessions(self, user_id: UserId, but: SessionId | None) -> None:
        """End every session of a user, but one."""
        for session in list(self._sessions.values()):
            if session.user_id == user_id and session.id != but:
                self._end(session)

    def _end(self, session: Session) -> None:
        if session.ended_at is None:
            self._sessions[session.id] = dataclasses.replace(session, ended_at=self._clock.now())

    def _logged_in(self, session: Session, user: User, *, refresh_token: str) -> LoggedIn:
        return LoggedIn(
            session=session,
            access_token=self._tokens.issue(user.id, roles=user.roles, session_id=session.id, lifetime=ACCESS_LIFETIME),
            access_expires_at=self._clock.now() + ACCESS_LIFETIME,
            refresh_token=refresh_token,
        )
