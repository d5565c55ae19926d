"""The use cases of sessions, in memory: the same outcomes as `user_svc.sessions.service`."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from chassis.clock import new_id
from protos.testing.tokens import TokensInMemory
from protos.testing.user_svc.passwords import Attempts
from protos.testing.user_svc.users import UsersInMemory
from user_svc.errors import LoginRefused, RefreshTokenInvalid, SessionOver, TokenReused
from user_svc.model import UserState
from user_svc.sessions.model import (
    LOST_ANSWER,
    LoggedIn,
    Session,
    SessionId,
    hash_token,
    login_key,
    new_token,
)

if TYPE_CHECKING:
    from datetime import datetime

    from protos.testing.shop import Shop
    from user_svc.model import User, UserId

# The defaults of the user service.
ACCESS_LIFETIME: Final = timedelta(minutes=15)
_SESSION_LIFETIME: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class _RefreshToken:
    """A refresh token: its session, and when it was used."""

    session_id: SessionId
    used_at: datetime | None = None


class SessionsInMemory:
    """The sessions of a shop. Its methods are those of SessionService."""

    def __init__(self, shop: Shop) -> None:
        self._users = shop.part(UsersInMemory)
        self._attempts = shop.part(Attempts)
        self._tokens = shop.part(TokensInMemory)
        self._clock = shop.clock
        self._sessions: dict[SessionId, Session] = {}
        self._refresh_tokens: dict[bytes, _RefreshToken] = {}
        self._users.end_sessions = self.end_sessions

    async def log_in(self, *, email: str, password: str) -> LoggedIn:
        """Begin a session, as SessionService.log_in() does."""
        key = login_key(email)
        user = self._users.find_by_email(key)
        password_hash = user.password_hash if user and user.state is UserState.ACTIVE else ""
        is_correct = self._attempts.is_correct(password, password_hash=password_hash, account=key)
        if user is None or not is_correct:
            raise LoginRefused
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
        self._refresh_tokens[hash_token(token)] = _RefreshToken(session.id)
        return self._logged_in(session, user, refresh_token=token)

    async def refresh(self, token: str) -> LoggedIn:
        """Exchange a refresh token for the next one, as SessionService.refresh() does."""
        now = self._clock.now()
        kept = self._refresh_tokens.get(hash_token(token))
        if kept is None:
            raise RefreshTokenInvalid
        session = self._sessions[kept.session_id]
        if session.ended_at is not None:
            raise RefreshTokenInvalid
        if session.expires_at <= now:
            raise SessionOver
        successor = session.next_token(token)
        if kept.used_at is not None and (
            now - kept.used_at > LOST_ANSWER or self._refresh_tokens[hash_token(successor)].used_at is not None
        ):
            self._end(session)
            raise TokenReused
        user = self._users.find(session.user_id)
        if user is None or user.state is not UserState.ACTIVE:
            raise RefreshTokenInvalid
        if kept.used_at is None:
            self._refresh_tokens[hash_token(token)] = _RefreshToken(session.id, used_at=now)
            self._refresh_tokens[hash_token(successor)] = _RefreshToken(session.id)
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
