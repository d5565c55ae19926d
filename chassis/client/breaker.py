"""A circuit breaker for calls to one dependency, under asyncio.

pybreaker counts failures and decides the state; a call runs outside of it, and its outcome is recorded afterwards. Run
inside, a call would hold pybreaker's lock until it ends; around an `async def` the breaker would never open; half-open,
it would let every caller through; and it would count a cancelled call as a failure or, if excluded, as a success.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import pybreaker
import structlog
from pydantic import Field
from typing_extensions import override

from chassis.settings import Section
from chassis.telemetry.metrics.calls import breaker_is, breaker_rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

log = structlog.get_logger(__name__)


class BreakerSettings(Section, env_prefix="BREAKER_"):
    """When to stop calling a dependency and when to try it again."""

    fail_max: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failures in a row that open the circuit breaker before the user service."""
    success_threshold: Annotated[int, Field(ge=1, le=1000)] = 2
    """Successes in a row that close it, once it is half-open."""
    reset_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60
    """How long it stays open before one call is let through to try."""


class CircuitOpen(Exception):
    """The breaker rejected a call to the dependency.

    Attributes:
        retry_after_s: seconds until the next call may pass; more than 0.
    """

    def __init__(self, name: str, *, retry_after_s: float) -> None:
        super().__init__(f"{name} is not being called: its circuit is open")
        self.retry_after_s = retry_after_s


class Inconclusive(Exception):
    """Raised by a call whose outcome says nothing about the dependency. It counts neither as success nor as failure."""


class _StateListener(pybreaker.CircuitBreakerListener):
    @override
    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        log.warning("breaker.state_changed", dependency=cb.name, state=new_state.name)
        breaker_is(new_state.name, dependency=str(cb.name))


class _Counts(pybreaker.CircuitMemoryStorage):
    """The counters of pybreaker. The time since it opened is measured on the monotonic clock.

    pybreaker compares the date at which it opened with the date of now. By a clock that is set back by an hour it would
    stay open for an hour longer.
    """

    def __init__(self) -> None:
        super().__init__(pybreaker.STATE_CLOSED)
        self._opened_s: float | None = None

    @property
    def open_for_s(self) -> float:
        """How long ago it opened; infinite if it never did."""
        return math.inf if self._opened_s is None else time.monotonic() - self._opened_s

    @property  # type: ignore[explicit-override]  # mypy does not see that of a property with a setter
    @override
    def opened_at(self) -> datetime | None:
        return None if self._opened_s is None else datetime.now(UTC) - timedelta(seconds=self.open_for_s)

    @opened_at.setter
    @override
    def opened_at(self, _: datetime) -> None:
        self._opened_s = time.monotonic()


class Breaker:
    """The circuit breaker of one dependency.

    Args:
        is_failure: whether an exception means that the dependency failed, rather than that the request was wrong.
    """

    def __init__(self, name: str, settings: BreakerSettings, *, is_failure: Callable[[Exception], bool]) -> None:
        self._name = name
        self._reset_timeout_s = settings.reset_timeout_s
        self._counts = _Counts()
        self._breaker = pybreaker.CircuitBreaker(
            name=name,
            fail_max=settings.fail_max,
            reset_timeout=settings.reset_timeout_s,
            success_threshold=settings.success_threshold,
            exclude=[lambda error: not is_failure(error)],
            state_storage=self._counts,
            listeners=[_StateListener()],
        )
        self._probe = asyncio.Lock()
        breaker_is(self.state, dependency=name)

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return str(self._counts.state)

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call the dependency and return the result of `work`.

        While closed, every call passes. While open, no call passes until the reset timeout is over. While half-open,
        one call passes at a time, until enough have succeeded.

        Raises:
            CircuitOpen: the breaker rejected the call.
            Inconclusive: raised by `work`.
        """
        if self.state == pybreaker.STATE_CLOSED:
            return await self._recorded(work)
        time_left_s = self._reset_timeout_s - self._counts.open_for_s
        if time_left_s > 0 or self._probe.locked():
            breaker_rejected(self._name)
            # Never 0: a caller that retries at once would come while the probe call is still running.
            raise CircuitOpen(self._name, retry_after_s=max(time_left_s, 0.1))
        async with self._probe:
            return await self._recorded(work)

    async def _recorded(self, work: Callable[[], Awaitable[T]]) -> T:
        # CancelledError is not an Exception, so a cancelled call is not recorded: it says nothing about the dependency.
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
        def outcome() -> None:
            if failure is not None:
                raise failure

        # pybreaker raises the failure again, or its own error if the circuit opened during the call. The caller gets
        # the call's own outcome in either case.
        with contextlib.suppress(Exception):
            self._breaker.call(outcome)
