"""The use cases of sessions: log in, refresh, log out. Opens the transactions."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import jwt
import structlog
from pydantic import Field

from chassis.auth.claims import ALGORITHM, TYPE, Claims
from chassis.clock import new_id
from chassis.errors import Overloaded
from chassis.settings import Section
from user_svc import repository
from user_svc.attempts import Attempt, account_of
from user_svc.errors import LoginRefused, RefreshTokenInvalid, SessionOver, TokenReused
from user_svc.model import User, UserState
from user_svc.sessions import repository as session_repository
from user_svc.sessions.model import (
    LOST_ANSWER,
    MOST_OPEN,
    LoggedIn,
    Session,
    SessionId,
    hash_token,
    login_key,
    new_token,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chassis.auth.access_tokens import TokenSettings
    from chassis.clock import Clock
    from chassis.database import Database
    from user_svc.attempts import Attempts
    from user_svc.keys import SigningKeys
    from user_svc.model import UserId
    from user_svc.passwords import Passwords

log = structlog.get_logger(__name__)

# Ten years.
_LONGEST_SESSION_S: Final = 10 * 365 * 24 * 3600


class SessionSettings(Section, env_prefix="SESSION_"):
    """How long tokens and sessions live."""

    access_lifetime_s: Annotated[int, Field(ge=10, le=3600)] = 900
    """How long an access token works, and so a stolen one."""
    lifetime_s: Annotated[int, Field(ge=60, le=_LONGEST_SESSION_S)] = 30 * 24 * 3600
    """How long a session lasts from the log-in, however often it is refreshed: 30 days. Then the user logs in again."""


class SessionService:
    """The use cases of sessions."""

    def __init__(  # noqa: PLR0913  the composition root's business; a bag for them would be worth nothing else
        self,
        database: Database,
        passwords: Passwords,
        attempts: Attempts,
        keys: SigningKeys,
        clock: Clock,
        *,
        settings: SessionSettings,
        tokens: TokenSettings,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._attempts = attempts
        self._keys = keys
        self._clock = clock
        self._settings = settings
        self._tokens = tokens

    async def log_in(self, *, email: str, password: str) -> LoggedIn:
        """Begin a session. Of more than 1,000 open ones of a user the oldest end.

        An unknown email takes as long as a wrong password, and counts like one.

        Raises:
            LoginRefused: the email and the password do not belong together.
            InvalidFields: the email is blank or too long.
            TooManyAttempts: there were too many wrong passwords for this email.
            Overloaded: too many others wait for a hash.
        """
        key = login_key(email)
        with self._passwords.place():
            user = await self._database.read(lambda connection: repository.find_by_email(connection, key))
            # Of a user who may not log in every password is wrong, and takes as long and counts as much.
            password_hash = user.password_hash if user and user.state is UserState.ACTIVE else ""
            attempt = Attempt(account=account_of(key), password=password, password_hash=password_hash)
            match = await self._attempts.check(attempt)
        if user is None or not match.is_correct:
            raise LoginRefused
        rehashed = await self._rehashed(password) if match.is_outdated else ""
        now = self._clock.now()
        session = Session(
            id=SessionId(new_id()),
            user_id=user.id,
            chain_key=secrets.token_bytes(32),
            created_at=now,
            expires_at=now + timedelta(seconds=self._settings.lifetime_s),
        )
        token = new_token()

        def write(connection: Connection) -> None:
            [locked] = repository.lock_users(connection, [user.id])
            # Suspended, deleted, or given another password while we were hashing.
            if locked.state is not UserState.ACTIVE or not locked.has_password_of(user):
                raise LoginRefused
            if rehashed:
                repository.rehash(connection, user.id, password_hash=rehashed)
            session_repository.insert_session(connection, session, token_hash=hash_token(token))
            session_repository.end_oldest_sessions_of(connection, user.id, but_newest=MOST_OPEN, now=now)

        await self._database.transaction(write)
        log.info("session.begun", user_id=str(user.id), session_id=str(session.id))
        return await self._logged_in(session, user, refresh_token=token)

    async def refresh(self, token: str) -> LoggedIn:
        """Exchange a refresh token for the next one.

        Raises:
            RefreshTokenInvalid: the token is unknown, or its session has ended.
            SessionOver: its session is over.
            TokenReused: it was used before. The session has ended by this.
        """

        def work(connection: Connection) -> tuple[Session, User, str] | Session:
            now = self._clock.now()
            found = session_repository.lock_token(connection, hash_token(token))
            if found is None:
                raise RefreshTokenInvalid
            used_at, session = found
            if session.ended_at is not None:
                raise RefreshTokenInvalid
            if session.expires_at <= now:
                raise SessionOver
            successor = session.next_token(token)
            if used_at is None:
                session_repository.mark_used(connection, hash_token(token), now=now)
                session_repository.insert_token(connection, hash_token(successor), session.id)
            elif now - used_at > LOST_ANSWER or session_repository.is_used(connection, hash_token(successor)):
                session_repository.end_session(connection, session.id, owner=None, now=now)
                return session  # returned and not raised, so that the end is committed
            user = repository.find_user(connection, session.user_id)
            if user is None or user.state is not UserState.ACTIVE:
                raise RefreshTokenInvalid
            return session, user, successor

        outcome = await self._database.transaction(work)
        if isinstance(outcome, Session):
            # There is a copy of the token: the log names the user and the session.
            log.warning("session.token_reused", user_id=str(outcome.user_id), session_id=str(outcome.id))
            raise TokenReused
        session, user, successor = outcome
        log.info("session.refreshed", user_id=str(user.id), session_id=str(session.id))
        return await self._logged_in(session, user, refresh_token=successor)

    async def log_out(self, session_id: SessionId, *, owner: UserId | None) -> None:
        """End a session. Does nothing if it has ended, belongs to another user, or never existed."""

        def work(connection: Connection) -> None:
            session_repository.end_session(connection, session_id, owner=owner, now=self._clock.now())

        await self._database.transaction(work)

    async def _rehashed(self, password: str) -> str:
        """Return a new hash of the password; an empty text if too many calls wait: the next login tries again."""
        try:
            return await self._passwords.hash(password)
        except Overloaded:
            return ""

    async def _logged_in(self, session: Session, user: User, *, refresh_token: str) -> LoggedIn:
        key = await self._keys.current()
        now = self._clock.now()
        claims = Claims(
            subject=user.id,
            session_id=session.id,
            roles=user.roles,
            token_id=new_id(),
            issued_at_s=int(now.timestamp()),
            lifetime_s=self._settings.access_lifetime_s,
        )
        access_token = jwt.encode(
            claims.payload(self._tokens), key.private, algorithm=ALGORITHM, headers={"kid": key.kid, "typ": TYPE}
        )
        return LoggedIn(
            session=session,
            access_token=access_token,
            access_expires_at=now + timedelta(seconds=self._settings.access_lifetime_s),
            refresh_token=refresh_token,
        )
