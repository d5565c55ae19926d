"""The record of a load: every attempt, and the acknowledged writes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of calls of a buyer."""

    PLACE = "place"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    GET = "get"
    LIST = "list"

    @property
    def is_write(self) -> bool:
        return self not in {Kind.GET, Kind.LIST}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call.

    Attributes:
        kind: what was asked for.
        request_id: the same for all attempts of one write; empty for a read.
        outcome: `ok`, or how it failed: `503 DATABASE_UNAVAILABLE`, `UNAVAILABLE`, `ConnectError`.
        started_s: on the monotonic clock.
        duration_s: until the answer or the failure.
        retry_after_s: when the answer said to come back; None without.
    """

    kind: Kind
    request_id: str
    outcome: str
    started_s: float
    duration_s: float
    retry_after_s: float | None = None

    @property
    def is_ok(self) -> bool:
        return self.outcome == OK


OK = "ok"


@dataclass(slots=True)
class Record:
    """The attempts and results of one load.

    Attributes:
        attempts: every call, in the order of their ends.
        placed: request id → id of the order that the answer named.
        moved: request id → id of the order, for each acknowledged confirm and cancel.
        given_up: how writes failed that were repeated no more.
        failed_reads: failures of reads, which are not repeated, and wrong answers.
        buyers: the users whose orders these are.
    """

    attempts: list[Attempt] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    failed_reads: list[str] = field(default_factory=list)
    buyers: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[str]:
        return self.given_up + self.failed_reads

    @property
    def failures(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if not attempt.is_ok]

    @property
    def successes(self) -> int:
        return sum(attempt.is_ok for attempt in self.attempts)

    @property
    def requests(self) -> int:
        """How many things were asked for, however often each was tried."""
        writes = {attempt.request_id for attempt in self.attempts if attempt.kind.is_write}
        return len(writes) + sum(not attempt.kind.is_write for attempt in self.attempts)

    def failed_outcomes(self, *, reads: bool = True, writes: bool = True) -> Counter[str]:
        """Return how attempts failed, and how often each way."""
        return Counter(
            f"{attempt.kind} {attempt.outcome}"
            for attempt in self.failures
            if (writes if attempt.kind.is_write else reads)
        )

    def recovered_after_s(self, fault_s: float) -> float:
        """Return how long after the fault the last attempt failed; 0 if none did."""
        ends = (attempt.started_s + attempt.duration_s for attempt in self.failures)
        return max([end - fault_s for end in ends if end > fault_s], default=0)

    def slowest_s(self) -> float:
        """Return how long the slowest successful attempt took."""
        return max((attempt.duration_s for attempt in self.attempts if attempt.is_ok), default=0)


def now_s() -> float:
    """Return the time that a record's times are compared with."""
    return time.monotonic()
