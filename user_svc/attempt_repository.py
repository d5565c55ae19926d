"""The statements on wrong passwords and on the attempts that are under way. Never commits."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, case, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from user_svc.errors import TooManyAttempts
from user_svc.sessions.model import FAILURES_KEPT, FREE_ATTEMPTS, wait_after
from user_svc.tables import attempt_reservations, login_attempts

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


# A reservation whose process died counts no longer than this. A hash and its two transactions take a fraction of it.
RESERVED_FOR: Final = timedelta(seconds=10)

# Some 20 ms.
_AT_ONCE: Final = 5_000
_REMOVE: Final = """
    WITH removed AS (
        DELETE FROM {0}
        WHERE ctid = ANY (ARRAY (
            SELECT ctid
            FROM {0}
            WHERE {1} >= :after AND {1} < :oldest
            ORDER BY {1}
            LIMIT {2}
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING {1}
    )
    SELECT max({1}) FROM removed
"""
_remove_failures = text(_REMOVE.format("login_attempts", "last_at", _AT_ONCE))
_remove_reservations = text(_REMOVE.format("attempt_reservations", "expires_at", _AT_ONCE))


class Outcome(Enum):
    """The outcome of an attempt: WRONG is counted, RIGHT ends the count of its account, UNKNOWN leaves it alone."""

    UNKNOWN = auto()
    RIGHT = auto()
    WRONG = auto()


def require_no_wait(connection: Connection, account: bytes, *, now: datetime) -> None:
    """Return if the account need not wait.

    Raises:
        TooManyAttempts: the account has to wait.
    """
    query = select(login_attempts.c.failures, login_attempts.c.locked_until).where(login_attempts.c.account == account)
    row = connection.execute(query).one_or_none()
    if row is not None:
        _require_no_wait(row.failures, row.locked_until, now=now)


def reserve(connection: Connection, account: bytes, attempt_id: UUID, *, now: datetime) -> bool:
    """Return whether the attempt may be made; it is then reserved until it is settled or RESERVED_FOR has passed.

    At most as many are under way as could be wrong without a wait: concurrent callers get no more tries than one caller
    who tries one by one.

    Raises:
        TooManyAttempts: the account has to wait.
    """
    failures_now = case((login_attempts.c.last_at < now - FAILURES_KEPT, 0), else_=login_attempts.c.failures)
    first = insert(login_attempts).values(account=account, failures=0, locked_until=now, last_at=now)
    # The row is ours until the commit: attempts at one account are counted one after the other.
    failures, locked_until = connection.execute(
        first.on_conflict_do_update(constraint="login_attempts_pkey", set_={"failures": failures_now}).returning(
            login_attempts.c.failures, login_attempts.c.locked_until
        )
    ).one()
    _require_no_wait(failures, locked_until, now=now)
    of_account = attempt_reservations.c.account == account
    under_way = connection.execute(
        select(func.count()).where(of_account, attempt_reservations.c.expires_at > now)
    ).scalar_one()
    if under_way >= max(FREE_ATTEMPTS - failures, 1):
        return False
    connection.execute(
        insert(attempt_reservations).values(id=attempt_id, account=account, expires_at=now + RESERVED_FOR)
    )
    return True


def settle(connection: Connection, account: bytes, attempt_id: UUID, outcome: Outcome, *, now: datetime) -> None:
    """Write the outcome of an attempt, and end its reservation."""
    # The account first, as in reserve(): transactions at one account then cannot lock each other.
    if outcome is Outcome.WRONG:
        _count_failure(connection, account, now=now)
    elif outcome is Outcome.RIGHT:
        connection.execute(delete(login_attempts).where(login_attempts.c.account == account))
    connection.execute(delete(attempt_reservations).where(attempt_reservations.c.id == attempt_id))


def remove_failures(connection: Connection, *, after: datetime, oldest: datetime) -> datetime | None:
    """Remove some accounts' failures between these times; return the time of the last, None if there was none."""
    last: datetime | None = connection.scalar(_remove_failures, {"after": after, "oldest": oldest})
    return last


def remove_reservations(connection: Connection, *, after: datetime, oldest: datetime) -> datetime | None:
    """Remove some reservations that ended between these times; return the end of the last, None if there was none."""
    last: datetime | None = connection.scalar(_remove_reservations, {"after": after, "oldest": oldest})
    return last


def _count_failure(connection: Connection, account: bytes, *, now: datetime) -> None:
    is_forgotten = login_attempts.c.last_at < now - FAILURES_KEPT
    statement = insert(login_attempts).values(account=account, failures=1, locked_until=now, last_at=now)
    failures = connection.execute(
        statement.on_conflict_do_update(
            constraint="login_attempts_pkey",
            set_={"failures": case((is_forgotten, 1), else_=login_attempts.c.failures + 1), "last_at": now},
        ).returning(login_attempts.c.failures)
    ).scalar_one()
    connection.execute(
        update(login_attempts)
        .where(login_attempts.c.account == account)
        .values(locked_until=now + wait_after(failures))
    )


def _require_no_wait(failures: int, locked_until: datetime, *, now: datetime) -> None:
    # Not by the clock alone: of two first tries the one that read its clock earlier may come later.
    if failures >= FREE_ATTEMPTS and locked_until > now:
        raise TooManyAttempts(retry_after_s=(locked_until - now).total_seconds())
