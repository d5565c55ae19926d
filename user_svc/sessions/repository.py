"""The statements on sessions. Never commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, TextClause, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert

from user_svc.model import UserId
from user_svc.sessions.model import Session, SessionId
from user_svc.tables import refresh_tokens, sessions

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from uuid import UUID

# Some 50 ms each, a hundredth of statement_timeout.
_SESSIONS_AT_ONCE: Final = 100
_TOKENS_AT_ONCE: Final = 5_000
_ENDED_AT_ONCE: Final = 2_000
_OLDEST_AT_ONCE: Final = 100

_OUTDATED: Final = """
    SELECT id, {0}
    FROM sessions
    WHERE {0} >= :after AND {0} < :oldest
    ORDER BY {0}
    LIMIT {1}
    FOR UPDATE SKIP LOCKED
"""
EXPIRED: Final = text(_OUTDATED.format("expires_at", _SESSIONS_AT_ONCE))
ENDED: Final = text(_OUTDATED.format("ended_at", _SESSIONS_AT_ONCE))
_remove_tokens = text(f"""
    DELETE FROM refresh_tokens
    WHERE ctid = ANY (ARRAY (
        SELECT ctid
        FROM refresh_tokens
        WHERE session_id = ANY (CAST(:ids AS uuid[]))
        LIMIT {_TOKENS_AT_ONCE}
    ))
""")  # noqa: S608  put together from constants
# By ranges of ids and not by `ended_at IS NULL`, which has no index: so a batch reads no more rows than it may write.
_end_some = text(f"""
    WITH portion AS (
        SELECT id
        FROM sessions
        WHERE id > :after
        ORDER BY id
        LIMIT {_ENDED_AT_ONCE}
    ),
    ended AS (
        UPDATE sessions
        SET ended_at = :now
        FROM portion
        WHERE sessions.id = portion.id AND sessions.ended_at IS NULL
        RETURNING sessions.id
    )
    SELECT (SELECT id FROM portion ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM ended) AS ended
""")  # noqa: S608  put together from constants


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
    insert_token(connection, token_hash, session.id)


def insert_token(connection: Connection, token_hash: bytes, session_id: SessionId) -> None:
    """Write a refresh token that is not used yet."""
    connection.execute(insert(refresh_tokens).values(token_hash=token_hash, session_id=session_id))


def lock_token(connection: Connection, token_hash: bytes) -> tuple[datetime | None, Session] | None:
    """Return when a refresh token was used, and its session; both stay locked. None if there is no such token."""
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
    return row.used_at, session


def is_used(connection: Connection, token_hash: bytes) -> bool:
    """Return whether a refresh token that exists was used."""
    query = select(refresh_tokens.c.used_at).where(refresh_tokens.c.token_hash == token_hash)
    return connection.execute(query).scalar_one() is not None


def mark_used(connection: Connection, token_hash: bytes, *, now: datetime) -> None:
    """Write that a refresh token was used."""
    connection.execute(update(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash).values(used_at=now))


def end_session(connection: Connection, session_id: SessionId, *, owner: UserId | None, now: datetime) -> None:
    """End a session, if it is the owner's; without an owner, that of any user."""
    query = update(sessions).where(sessions.c.id == session_id, sessions.c.ended_at.is_(None)).values(ended_at=now)
    if owner is not None:
        query = query.where(sessions.c.user_id == owner)
    connection.execute(query)


def end_oldest_sessions_of(connection: Connection, user_id: UserId, *, but_newest: int, now: datetime) -> None:
    """End the oldest open sessions of a user, 100 at most, and leave as many of the newest as said."""
    # Ids are in the order of time.
    oldest = (
        select(sessions.c.id)
        .where(sessions.c.user_id == user_id, sessions.c.ended_at.is_(None))
        .order_by(sessions.c.id.desc())
        .offset(but_newest)
        .limit(_OLDEST_AT_ONCE)
    )
    connection.execute(update(sessions).where(sessions.c.id.in_(oldest)).values(ended_at=now))


def end_sessions_of(
    connection: Connection, user_ids: Iterable[UserId], *, but: SessionId | None = None, now: datetime
) -> None:
    """End every session of these users, but one."""
    query = update(sessions).where(sessions.c.user_id.in_(list(user_ids)), sessions.c.ended_at.is_(None))
    if but is not None:
        query = query.where(sessions.c.id != but)
    connection.execute(query.values(ended_at=now))


def remove_outdated(
    connection: Connection, outdated: TextClause, *, after: datetime, oldest: datetime
) -> datetime | None:
    """Remove some sessions that are EXPIRED or ENDED since a time between these two.

    Returns:
        The time of the first, where the next call continues; None if there was none.
    """
    found = connection.execute(outdated, {"after": after, "oldest": oldest}).all()
    if not found:
        return None
    ids = [each for each, _ in found]
    # Tokens first, and a bounded number: one session may have more than a statement can delete in its time.
    removed = connection.execute(_remove_tokens, {"ids": ids}).rowcount
    if removed < _TOKENS_AT_ONCE:
        connection.execute(delete(sessions).where(sessions.c.id.in_(ids)))
    first: datetime = found[0][1]
    return first


def end_some(connection: Connection, *, after: UUID, now: datetime) -> tuple[UUID, int] | None:
    """End the sessions that are open among the next ones in the order of their ids.

    Returns:
        The id of the last ended session, where the next call continues, and how many were ended; None if none was left.
    """
    row = connection.execute(_end_some, {"after": after, "now": now}).one()
    return None if row.last is None else (row.last, row.ended)
