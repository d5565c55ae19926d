"""Removes outdated sessions and attempts, and ends all sessions: in batches, each a short transaction of its own.

A batch is bounded in rows, so none comes near statement_timeout however much there is, and what is done stays done
when a later batch fails. Replicas that sweep at once take different rows (SKIP LOCKED).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from chassis.database.database import earlier_now
from chassis.errors import DatabaseUnavailable
from chassis.runtime.periodic import Failures, every
from user_svc import attempt_repository
from user_svc.sessions import repository as session_repository

if TYPE_CHECKING:
    from collections.abc import Callable

    from chassis.clock import Clock
    from chassis.database import Database

_EVERY_S: Final = 3600.0
_ATTEMPTS: Final = 10
# Long enough to find out why a session ended or an account had to wait.
_KEPT: Final = timedelta(days=1)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


async def sweep_forever(database: Database, clock: Clock, *, every_s: float = _EVERY_S) -> None:
    """Sweep at once and then every `every_s`, until cancelled."""

    async def sweep_now() -> None:
        await sweep(database, now=await earlier_now(database, clock))

    failures = Failures(failed="sessions.sweep_failed", recovered="sessions.sweep_recovered")
    await every(every_s, sweep_now, failures=failures)


async def sweep(database: Database, *, now: datetime) -> None:
    """Remove sessions that ended or expired over a day ago, with their tokens, and attempts that are as old.

    Each batch begins where the one before did, because the index has the entries of removed rows until the next VACUUM.
    """
    outdated = session_repository.remove_outdated
    batches: list[tuple[Callable[..., datetime | None], datetime]] = [
        (partial(outdated, outdated=session_repository.EXPIRED), now - _KEPT),
        (partial(outdated, outdated=session_repository.ENDED), now - _KEPT),
        (attempt_repository.remove_failures, now - _KEPT),
        (attempt_repository.remove_reservations, now),
    ]
    for remove_some, oldest in batches:
        after: datetime | None = _LONG_AGO
        while after is not None:
            after = await database.transaction(partial(remove_some, after=after, oldest=oldest))


async def end_all_sessions(database: Database, clock: Clock) -> int:
    """End every session that there is now; return how many ended.

    A batch that fails, as when a sweep has locked one of its rows, is tried again. After ten failures in a row the
    error is raised: call this again for the rest.
    """
    now, position, ended, failures = clock.now(), UUID(int=0), 0, 0
    while True:
        try:
            batch = await database.transaction(partial(session_repository.end_some, after=position, now=now))
        except DatabaseUnavailable:
            failures += 1
            if failures == _ATTEMPTS:
                raise
            await asyncio.sleep(1)
            continue
        if batch is None:
            return ended
        position, count = batch
        ended, failures = ended + count, 0
