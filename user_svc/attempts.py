"""Checks passwords so that guessing is slow: from the fifth wrong one on, an account has to wait.

Every rpc that compares a password goes through here. An attempt is reserved before the hash and settled by its
outcome: only a wrong password counts. A caller that leaves, a deadline and a database error do not.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NewType
from uuid import uuid4

from user_svc import attempt_repository
from user_svc.attempt_repository import Outcome
from user_svc.errors import TooManyAttempts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chassis.clock import Clock
    from chassis.database import Database
    from user_svc.passwords import Match, Passwords

Account = NewType("Account", bytes)

# The pause while other attempts at the account are under way, also in other replicas. A hash takes some 50 ms.
_LOOK_AGAIN_S: Final = 0.05
# After this time the caller is refused, well before the edge's deadline of 15 s.
_PATIENCE_S: Final = 5.0


def account_of(email_key: str) -> Account:
    """Return the account of an email, which need not be a user's: a digest, because unknown emails are stored too."""
    return Account(hashlib.sha256(email_key.encode()).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A password to check.

    Attributes:
        account: at which it is tried.
        password: as it was typed.
        password_hash: of the account; an empty one matches no password, and takes as long to check.
        is_excused: called if the password is wrong; returns whether that is no guess, and so does not count.
    """

    account: Account
    password: str = field(repr=False)
    password_hash: str = field(repr=False)
    is_excused: Callable[[], Awaitable[bool]] | None = None


class Attempts:
    """Checks passwords and counts the wrong ones."""

    def __init__(self, database: Database, passwords: Passwords, clock: Clock) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock

    async def check(self, attempt: Attempt) -> Match:
        """Return what the hash says about the password. A wrong one has been counted when this returns.

        Raises:
            TooManyAttempts: the account has to wait; the password was not looked at.
            Overloaded: too many others wait for a hash; the password was not looked at.
            DatabaseUnavailable: the attempt cannot be counted, so its outcome is not returned.
        """
        # Before the queue for a hash, in which an account that has to wait must take no place.
        await self._database.read(
            lambda connection: attempt_repository.require_no_wait(connection, attempt.account, now=self._clock.now())
        )
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            match = await self._passwords.in_turn(functools.partial(self._try, attempt))
            if match is not None:
                return match
            if time.monotonic() > give_up_at:
                raise TooManyAttempts(retry_after_s=1)
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _try(self, attempt: Attempt) -> Match | None:
        """Return the outcome; None if the attempts under way may use up the account's free ones."""
        attempt_id, now = uuid4(), self._clock.now()
        is_reserved = await self._database.transaction(
            lambda connection: attempt_repository.reserve(connection, attempt.account, attempt_id, now=now)
        )
        if not is_reserved:
            return None
        outcome = Outcome.UNKNOWN
        try:
            match = await self._passwords.match(attempt.password, password_hash=attempt.password_hash)
            if match.is_correct:
                outcome = Outcome.RIGHT
            elif attempt.is_excused is None or not await attempt.is_excused():
                outcome = Outcome.WRONG
        finally:
            settled_at = self._clock.now()
            await self._database.transaction(
                lambda connection: attempt_repository.settle(
                    connection, attempt.account, attempt_id, outcome, now=settled_at
                )
            )
        return match
