"""Calls that begin at a fixed pace, however long the calls before them take, as those of many callers do."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from tests.chaos.clients import CallFailed, refusal
from tests.chaos.record import OK, now_s

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass(frozen=True, slots=True)
class Answered:
    """One call.

    Attributes:
        began_s: on the monotonic clock.
        took_s: until the answer or the failure.
        outcome: `ok`, or how it failed.
    """

    began_s: float
    took_s: float
    outcome: str


@dataclass(slots=True)
class Answers:
    """All calls of one load."""

    calls: list[Answered] = field(default_factory=list)

    @property
    def failed(self) -> Counter[str]:
        """How calls failed, and how often each way."""
        return Counter(call.outcome for call in self.calls if call.outcome != OK)

    def succeeded(self, *, until_s: float) -> int:
        """Return how many calls had succeeded by then, on the monotonic clock."""
        return sum(call.outcome == OK and call.began_s + call.took_s <= until_s for call in self.calls)

    def percentile_s(self, percent: int) -> float:
        """Return the time within which this share of the calls ended, failed ones included."""
        return statistics.quantiles((call.took_s for call in self.calls), n=100, method="inclusive")[percent - 1]

    def latency(self) -> str:
        """Return the percentiles in words."""
        longest_s = max(call.took_s for call in self.calls)
        return f"p50 {self.percentile_s(50):.3f} s, p99 {self.percentile_s(99):.2f} s, max {longest_s:.2f} s"


async def call_at_a_pace(call: Callable[[], Awaitable[object]], *, per_s: float, for_s: float) -> Answers:
    """Return what became of the calls, all of which have ended."""
    answers = Answers()

    async def one() -> None:
        began_s, outcome = now_s(), OK
        try:
            await call()
        except CallFailed as failure:
            outcome = failure.outcome
        answers.calls.append(Answered(began_s, now_s() - began_s, outcome))

    begins_s = now_s()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_s * for_s)):
            await asyncio.sleep(max(begins_s + number / per_s - now_s(), 0))  # the pace makes it an open loop
            tasks.create_task(one())
    return answers


def crowd(edge_url: str, *, token: str) -> httpx.AsyncClient:
    """Return a client with a connection for each call that is under way."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=edge_url, limits=limits, trust_env=False, headers=headers, timeout=20)


async def ask(http: httpx.AsyncClient, method: str, path: str, **how: Any) -> None:
    """Call once.

    Raises:
        CallFailed: there was no answer, or it was no success.
    """
    try:
        response = await http.request(method, path, **how)
    except httpx.TransportError as error:
        raise CallFailed(type(error).__name__) from error
    if not response.is_success:
        raise refusal(response)
