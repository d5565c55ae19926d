"""Removes outdated sessions and attempts, and ends all sessions: in batches, each a short transaction of its own.

A batch is bounded in rows, so none comes near statement_timeout however much there is, and what is done stays done
when a later batch fails. Replicas that sweep at once take different rows (SKIP LOCKED).
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from chassis.runtime.periodic import Failures, every
from user_svc import attempt_repository
from user_svc.sessions import repository as session_repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database

_EVERY_S: Final = 3600.0
# Long enough to find out why a session ended or an account had to wait.
_KEPT: Final = timedelta(days=1)


async def sweep_forever(database: Database, clock: Clock, *, every_s: float = _EVERY_S) -> None:
    """Sweep at once and then every `every_s`, until cancelled."""
    failures = Failures(failed="sessions.sweep_failed", recovered="sessions.sweep_recovered")
    await every(every_s, lambda: sweep(database, now=clock.now()), failures=failures)


async def sweep(database: Database, *, now: datetime) -> None:
    """Remove sessions that ended or expired over a day ago, with their tokens, and attempts that are as old."""
    oldest = now - _KEPT
    batches: list[Callable[[Connection], bool]] = [
        partial(session_repository.remove_expired, oldest=oldest),
        partial(session_repository.remove_ended, oldest=oldest),
        partial(attempt_repository.remove_failures, oldest=oldest),
        partial(attempt_repository.remove_reservations, now=now),
    ]
    for remove_some in batches:
        while await database.transaction(remove_some):
            pass


async def end_all_sessions(database: Database, clock: Clock) -> int:
    """End every session that there is now; return how many ended. After a failure, call it again for the rest."""
    now, position, ended = clock.now(), UUID(int=0), 0
    while (
        batch := await database.transaction(partial(session_repository.end_some, after=position, now=now))
    ) is not None:
        position, count = batch
        ended += count
    return ended
