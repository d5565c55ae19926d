"""A circuit breaker for calls to one dependency, under asyncio.

pybreaker counts and decides; a call runs outside of it and its outcome is told to it afterwards. Run inside, it would
hold pybreaker's lock during the call, or never open (around an `async def`), let every caller through when half-open,
and take a caller that gave up for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import pybreaker
import structlog
from pydantic import Field
from typing_extensions import override

from chassis.settings import Section
from chassis.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

log = structlog.get_logger(__name__)


class BreakerSettings(Section, env_prefix="BREAKER_"):
    """When to stop calling a dependency and when to try it again."""

    # Failures in a row until it opens.
    fail_max: Annotated[int, Field(ge=1)] = 5
    # Successes in a row, once half-open, until it closes.
    success_threshold: Annotated[int, Field(ge=1)] = 2
    # How long it stays open before one call is let through to see.
    reset_timeout_s: Annotated[float, Field(gt=0)] = 60


class CircuitOpen(Exception):
    """The dependency is not being called.

    Attributes:
        retry_after_s: when the next call may be let through; more than 0.
    """

    def __init__(self, name: str, *, retry_after_s: float) -> None:
        super().__init__(f"{name} is not being called: its circuit is open")
        self.retry_after_s = retry_after_s


class Inconclusive(Exception):
    """Raised by a call that ended without saying anything about the dependency. Neither a success nor a failure."""


class _Log(pybreaker.CircuitBreakerListener):
    @override
    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        log.warning("breaker.state_changed", dependency=cb.name, state=new_state.name)
        metrics.breaker_is(new_state.name, dependency=str(cb.name))


class Breaker:
    """The circuit breaker of one dependency.

    Args:
        name: the dependency.
        settings: when it opens and closes.
        is_failure: whether an exception says that the dependency is sick, rather than that the call was wrong.
    """

    def __init__(self, name: str, settings: BreakerSettings, *, is_failure: Callable[[Exception], bool]) -> None:
        self._name = name
        self._reset_timeout_s = settings.reset_timeout_s
        self._counts = pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
        self._breaker = pybreaker.CircuitBreaker(
            name=name,
            fail_max=settings.fail_max,
            reset_timeout=settings.reset_timeout_s,
            success_threshold=settings.success_threshold,
            exclude=[lambda error: not is_failure(error)],
            state_storage=self._counts,
            listeners=[_Log()],
        )
        self._probe = asyncio.Lock()
        metrics.breaker_is(self.state, dependency=name)

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return str(self._counts.state)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what the call to the dependency returns.

        Closed: every call goes through. Open: none, until the time is up. Then one at a time, until enough have
        succeeded.

        Raises:
            CircuitOpen: the dependency is not being called.
            Inconclusive: as the work raised it.
        """
        if self.state == pybreaker.STATE_CLOSED:
            return await self._observed(work)
        time_left_s = self._time_left_s()
        if time_left_s > 0 or self._probe.locked():
            metrics.breaker_rejected(self._name)
            # Never 0: who is told to come back at once comes back while the probe is still out.
            raise CircuitOpen(self._name, retry_after_s=max(time_left_s, 0.1))
        async with self._probe:
            return await self._observed(work)

    async def _observed(self, work: Callable[[], Awaitable[T]]) -> T:
        # CancelledError is no Exception: a caller that gave up says nothing about the dependency.
        try:
            result = await work()
        except Inconclusive:
            raise
        except Exception as error:
            self._record(error)
            raise
        self._record(None)
        return result

    def _record(self, failure: Exception | None) -> None:
        def repeat_the_outcome() -> None:
            if failure is not None:
                raise failure

        # It raises the failure again, or that the circuit has opened since the call began. Both are known.
        with contextlib.suppress(Exception):
            self._breaker.call(repeat_the_outcome)

    def _time_left_s(self) -> float:
        opened_at: datetime | None = self._counts.opened_at
        if opened_at is None:
            return 0
        return self._reset_timeout_s - (datetime.now(UTC) - opened_at).total_seconds()
