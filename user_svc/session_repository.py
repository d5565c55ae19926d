"""The statements on sessions and failed logins. Never commits."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from user_svc.model import UserId
from user_svc.session_model import RefreshToken, Session, SessionId
from user_svc.tables import login_attempts, refresh_tokens, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

# Then an account's failures are forgotten, whoever they were by.
FAILURES_KEPT: Final = timedelta(days=1)


def insert_session(connection: Connection, session: Session, *, token_hash: bytes) -> None:
    """Write a new session and its first refresh token."""
    connection.execute(
        insert(sessions).values(
            id=session.id,
            user_id=session.user_id,
            chain_key=session.chain_key,
            created_at=session.created_at,
            expires_at=session.expires_at,
        )
    )
    insert_token(connection, RefreshToken(token_hash, session.id, None))


def insert_token(connection: Connection, token: RefreshToken) -> None:
    """Write a refresh token."""
    connection.execute(
        insert(refresh_tokens).values(token_hash=token.token_hash, session_id=token.session_id, used_at=token.used_at)
    )


def lock_token(connection: Connection, token_hash: bytes) -> tuple[RefreshToken, Session] | None:
    """Return a refresh token and its session, kept from others until the transaction ends; None if there is none."""
    row = connection.execute(
        select(refresh_tokens, sessions)
        .join(sessions, sessions.c.id == refresh_tokens.c.session_id)
        .where(refresh_tokens.c.token_hash == token_hash)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return None
    session = Session(
        id=SessionId(row.id),
        user_id=UserId(row.user_id),
        chain_key=row.chain_key,
        created_at=row.created_at,
        expires_at=row.expires_at,
        ended_at=row.ended_at,
    )
    return RefreshToken(row.token_hash, session.id, row.used_at), session


def is_used(connection: Connection, token_hash: bytes) -> bool:
    """Return whether a refresh token that exists was used."""
    query = select(refresh_tokens.c.used_at).where(refresh_tokens.c.token_hash == token_hash)
    return connection.execute(query).scalar_one() is not None


def mark_used(connection: Connection, token_hash: bytes, *, now: datetime) -> None:
    """Write that a refresh token was used."""
    connection.execute(update(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash).values(used_at=now))


def end_session(connection: Connection, session_id: SessionId, *, owner: UserId | None, now: datetime) -> None:
    """End a session, if it is the owner's; None stands for anybody's."""
    query = update(sessions).where(sessions.c.id == session_id, sessions.c.ended_at.is_(None)).values(ended_at=now)
    if owner is not None:
        query = query.where(sessions.c.user_id == owner)
    connection.execute(query)


def end_sessions_of(
    connection: Connection, user_ids: Iterable[UserId], *, but: SessionId | None = None, now: datetime
) -> None:
    """End every session of these users, but one."""
    query = update(sessions).where(sessions.c.user_id.in_(list(user_ids)), sessions.c.ended_at.is_(None))
    if but is not None:
        query = query.where(sessions.c.id != but)
    connection.execute(query.values(ended_at=now))


def remove_outdated(connection: Connection, *, now: datetime) -> None:
    """Remove sessions that ended or expired, and failures, over a day ago."""
    oldest = now - FAILURES_KEPT
    connection.execute(delete(sessions).where(or_(sessions.c.expires_at < oldest, sessions.c.ended_at < oldest)))
    connection.execute(delete(login_attempts).where(login_attempts.c.last_at < oldest))
