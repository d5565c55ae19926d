"""Passwords and wrong attempts, in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from user_svc.errors import TooManyAttempts
from user_svc.password_rules import PasswordRules
from user_svc.sessions.model import FAILURES_KEPT, FREE_ATTEMPTS, wait_after
from user_svc.text import composed

if TYPE_CHECKING:
    from datetime import datetime

    from protos.testing.shop import Shop
    from user_svc.settings import PasswordRuleSettings


@dataclass(frozen=True, slots=True)
class _Rules:
    """The contract's rules for new passwords; an operator of the shop can set another minimum."""

    min_length: int = 15


RULES: Final = PasswordRules(cast("PasswordRuleSettings", _Rules()))


def hash_of(password: str) -> str:
    """Return a digest of a password. Cheap, and so for tests only."""
    return hashlib.sha256(composed(password).encode()).hexdigest()


@dataclass(slots=True)
class _Failures:
    count: int
    last_at: datetime
    locked_until: datetime


class Attempts:
    """Counts wrong passwords by account, the key of an email."""

    def __init__(self, shop: Shop) -> None:
        self._clock = shop.clock
        self._failures: dict[str, _Failures] = {}

    def is_correct(self, password: str, *, password_hash: str, account: str) -> bool:
        """Return whether this is the password; a wrong one counts.

        Raises:
            TooManyAttempts: the account has to wait.
        """
        now = self._clock.now()
        failures = self._failures.get(account)
        if failures and failures.last_at < now - FAILURES_KEPT:
            failures = None
        if failures and failures.count >= FREE_ATTEMPTS and failures.locked_until > now:
            raise TooManyAttempts(retry_after_s=(failures.locked_until - now).total_seconds())
        if password_hash and hash_of(password) == password_hash:
            self._failures.pop(account, None)
            return True
        count = (failures.count if failures else 0) + 1
        self._failures[account] = _Failures(count, now, now + wait_after(count))
        return False
