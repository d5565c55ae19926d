from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from chassis.client.breaker import Breaker, BreakerSettings, CircuitOpen, Inconclusive
from chassis.telemetry.metrics import REGISTRY
from chassis.testing import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import tzinfo

AT_ONCE_S = 1e-6


def value_of(metric: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(metric, labels)


class Sick(Exception):
    """The dependency fails."""


class NotThere(Exception):
    """The dependency is well and says no."""


def a_breaker(*, reset_timeout_s: float = 60, fail_max: int = 5, success_threshold: int = 2) -> Breaker:
    settings = BreakerSettings(fail_max=fail_max, success_threshold=success_threshold, reset_timeout_s=reset_timeout_s)
    return Breaker("users", settings, is_failure=lambda error: isinstance(error, Sick))


def failing(error: Exception) -> Callable[[], Awaitable[str]]:
    async def work() -> str:
        # Awaited first: a breaker that only sees the coroutine being made would call this a success.
        await asyncio.sleep(0)  # a turn of the loop
        raise error

    return work


async def answer() -> str:
    await asyncio.sleep(0)  # a turn of the loop, as above
    return "answer"


async def must_not_be_called() -> str:
    pytest.fail("the dependency was called")


async def fail(breaker: Breaker, *, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Sick):
            await breaker.call(failing(Sick()))


async def opened(*, reset_timeout_s: float = 60) -> Breaker:
    breaker = a_breaker(reset_timeout_s=reset_timeout_s)
    await fail(breaker, times=5)
    return breaker


class Hanging:
    """A call that hangs until it is let go."""

    def __init__(self, breaker: Breaker, *, then: Exception | None = None) -> None:
        self.began = asyncio.Event()
        self.let_go = asyncio.Event()
        self._then = then
        self.task = asyncio.create_task(breaker.call(self._work))

    async def _work(self) -> str:
        self.began.set()
        await self.let_go.wait()
        if self._then is not None:
            raise self._then
        return "late answer"

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


async def test_it_opens_around_a_coroutine_at_the_fifth_failure_in_a_row() -> None:
    breaker = a_breaker()

    await fail(breaker, times=4)
    state_after_four = breaker.state
    await fail(breaker)

    assert (state_after_four, breaker.state) == ("closed", "open")
    with pytest.raises(CircuitOpen, match="users is not being called"):
        await breaker.call(must_not_be_called)


async def test_a_breaker_that_was_never_called_is_shown_as_closed() -> None:
    name = "of nobody yet"

    Breaker(name, BreakerSettings(), is_failure=lambda _error: True)

    shown = {state: value_of("shop_breaker_state", dependency=name, state=state) for state in ("closed", "open")}
    assert shown == {"closed": 1, "open": 0}


async def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = a_breaker()

    for _ in range(3):
        await fail(breaker, times=4)
        assert await breaker.call(answer) == "answer"

    assert breaker.state == "closed"


async def test_calls_run_at_the_same_time() -> None:
    breaker = a_breaker()
    calls = [Hanging(breaker) for _ in range(20)]

    async with asyncio.timeout(5):
        for each in calls:
            await each.began.wait()

    for each in calls:
        each.let_go.set()
    assert await asyncio.gather(*(each.task for each in calls)) == ["late answer"] * 20


async def test_the_failure_that_opens_it_is_raised_as_it_is() -> None:
    breaker = a_breaker()
    await fail(breaker, times=4)
    cause = Sick("connection refused")

    with pytest.raises(Sick) as raised:
        await breaker.call(failing(cause))

    assert raised.value is cause
    assert breaker.state == "open"


async def test_a_failed_probe_raises_its_failure_as_it_is() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)
    cause = Sick("connection refused")

    with pytest.raises(Sick) as raised:
        await breaker.call(failing(cause))

    assert raised.value is cause


async def test_a_refusal_is_not_a_failure() -> None:
    breaker = a_breaker()

    for _ in range(20):
        with pytest.raises(NotThere):
            await breaker.call(failing(NotThere()))

    assert breaker.state == "closed"


async def test_a_refusal_resets_the_count_of_failures() -> None:
    breaker = a_breaker()
    await fail(breaker, times=4)

    with pytest.raises(NotThere):
        await breaker.call(failing(NotThere()))
    await fail(breaker, times=4)

    assert breaker.state == "closed"


async def test_a_cancelled_call_is_not_a_failure() -> None:
    breaker = a_breaker()

    for _ in range(20):
        hanging = Hanging(breaker)
        await hanging.began.wait()
        await hanging.cancel()

    assert breaker.state == "closed"


async def test_a_cancelled_call_is_not_a_success_either() -> None:
    breaker = a_breaker()
    await fail(breaker, times=4)

    hanging = Hanging(breaker)
    await hanging.began.wait()
    await hanging.cancel()
    await fail(breaker)

    assert breaker.state == "open"


async def test_an_inconclusive_call_is_neither_a_failure_nor_a_success() -> None:
    breaker = a_breaker()
    await fail(breaker, times=4)

    for _ in range(10):
        with pytest.raises(Inconclusive):
            await breaker.call(failing(Inconclusive()))
    state_before_the_fifth = breaker.state
    await fail(breaker)

    assert (state_before_the_fifth, breaker.state) == ("closed", "open")


async def test_an_inconclusive_probe_lets_the_next_one_through() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)

    for _ in range(3):
        with pytest.raises(Inconclusive):
            await breaker.call(failing(Inconclusive()))
    state_after_probes = breaker.state
    await breaker.call(answer)

    assert state_after_probes != "closed"
    assert breaker.state == "half-open"


async def test_every_change_of_state_is_logged_once() -> None:
    with structlog.testing.capture_logs() as logged:
        breaker = await opened(reset_timeout_s=AT_ONCE_S)
        await breaker.call(answer)
        await breaker.call(answer)

    assert [(each["event"], each["dependency"], each["state"]) for each in logged] == [
        ("breaker.state_changed", "users", state) for state in ("open", "half-open", "closed")
    ]


async def test_cancelled_probes_neither_close_it_nor_block_the_next_one() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)

    for _ in range(5):
        probe = Hanging(breaker)
        await probe.began.wait()
        await probe.cancel()
    state_after_cancels = breaker.state
    await breaker.call(answer)

    assert state_after_cancels != "closed"
    assert breaker.state == "half-open"


async def test_a_cancelled_probe_after_a_success_does_not_close_it() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)
    await breaker.call(answer)

    probe = Hanging(breaker)
    await probe.began.wait()
    await probe.cancel()

    assert breaker.state == "half-open"


async def test_half_open_lets_one_call_through_at_a_time() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)
    probe = Hanging(breaker)
    await probe.began.wait()

    for _ in range(10):
        with pytest.raises(CircuitOpen) as refused:
            await breaker.call(must_not_be_called)
        assert refused.value.retry_after_s > 0

    probe.let_go.set()
    assert await probe.task == "late answer"


async def test_it_also_gates_the_second_probe() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)
    await breaker.call(answer)
    probe = Hanging(breaker)
    await probe.began.wait()

    with pytest.raises(CircuitOpen):
        await breaker.call(must_not_be_called)

    probe.let_go.set()
    await probe.task
    assert breaker.state == "closed"


async def test_the_second_success_closes_it() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)

    await breaker.call(answer)
    state_after_one = breaker.state
    await breaker.call(answer)

    assert (state_after_one, breaker.state) == ("half-open", "closed")


async def test_closed_again_it_counts_from_nothing() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)
    await breaker.call(answer)
    await breaker.call(answer)

    await fail(breaker, times=4)

    assert breaker.state == "closed"


async def test_a_failed_probe_opens_it_again_for_the_whole_time() -> None:
    breaker = await opened(reset_timeout_s=0.5)
    await until_probed(breaker, failing(Sick()))

    left_s = await retry_after_s(breaker)

    assert breaker.state == "open"
    assert 0.1 < left_s <= 0.5


async def test_a_failed_probe_forgets_the_success_before_it() -> None:
    breaker = await opened(reset_timeout_s=AT_ONCE_S)
    await breaker.call(answer)
    await fail(breaker)

    await breaker.call(answer)

    assert breaker.state == "half-open"


async def until_probed(breaker: Breaker, work: Callable[[], Awaitable[str]]) -> None:
    """Call until one call is let through, and see it fail."""

    async def was_probed() -> bool:
        try:
            await breaker.call(work)
        except Sick:
            return True
        except CircuitOpen:
            return False
        return False

    await until(was_probed)


async def test_failures_that_come_in_late_keep_it_open() -> None:
    breaker = a_breaker()
    late = [Hanging(breaker, then=Sick()) for _ in range(10)]
    for each in late:
        await each.began.wait()
        each.let_go.set()

    outcomes = await asyncio.gather(*(each.task for each in late), return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {Sick}
    assert breaker.state == "open"


async def test_a_success_that_comes_in_late_neither_fails_nor_closes_it() -> None:
    breaker = a_breaker()
    late = Hanging(breaker)
    await late.began.wait()
    await fail(breaker, times=5)

    late.let_go.set()

    assert await late.task == "late answer"
    assert breaker.state == "open"


async def test_retry_after_is_the_time_left() -> None:
    started = time.monotonic()
    breaker = await opened(reset_timeout_s=60)

    left_s = await retry_after_s(breaker)

    passed_s = time.monotonic() - started
    # Two clocks are compared; the margin is for what they differ.
    assert 60 - passed_s - 0.01 <= left_s <= 60


async def test_retry_after_falls_as_time_passes() -> None:
    breaker = await opened(reset_timeout_s=60)

    async def has_fallen() -> bool:
        return await retry_after_s(breaker) < 59.95

    await until(has_fallen)


async def retry_after_s(breaker: Breaker) -> float:
    """Return when the open breaker says that it is worth trying again."""
    with pytest.raises(CircuitOpen) as refused:
        await breaker.call(must_not_be_called)
    return refused.value.retry_after_s


async def test_a_refusal_takes_far_less_than_5_ms() -> None:
    breaker = await opened()
    took_s = []

    for _ in range(200):
        started = time.perf_counter()
        with pytest.raises(CircuitOpen):
            await breaker.call(must_not_be_called)
        took_s.append(time.perf_counter() - started)

    # The median: a busy machine may take the core away in the middle of one of them.
    assert sorted(took_s)[100] < 0.001


@given(st.lists(st.sampled_from(["success", "failure", "no", "cancelled"]), max_size=40))
def test_a_closed_breaker_opens_at_the_fifth_consecutive_failure(outcomes: list[str]) -> None:
    async def live() -> None:
        breaker = a_breaker()
        in_a_row = 0
        for outcome in outcomes:
            await live_through(breaker, outcome)
            in_a_row = {"success": 0, "no": 0, "failure": in_a_row + 1, "cancelled": in_a_row}[outcome]
            assert breaker.state == ("open" if in_a_row >= 5 else "closed")
            if in_a_row >= 5:
                return

    asyncio.run(live())


async def live_through(breaker: Breaker, outcome: str) -> None:
    match outcome:
        case "success":
            await breaker.call(answer)
        case "failure":
            await fail(breaker)
        case "no":
            with pytest.raises(NotThere):
                await breaker.call(failing(NotThere()))
        case _:
            hanging = Hanging(breaker)
            await hanging.began.wait()
            await hanging.cancel()


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
async def test_an_open_breaker_stays_open_for_its_time_whatever_the_clock_does(
    monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    class JumpedClock(datetime):
        @classmethod
        @override
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + ahead

    breaker = a_breaker(fail_max=1, reset_timeout_s=0.5)
    with pytest.raises(Sick):
        await breaker.call(failing(Sick()))
    for module in ("pybreaker", "chassis.client.breaker"):
        monkeypatch.setattr(f"{module}.datetime", JumpedClock)
    with pytest.raises(CircuitOpen) as opened:
        await breaker.call(must_not_be_called)
    assert 0 < opened.value.retry_after_s <= 0.5

    async def is_closed() -> bool:
        with contextlib.suppress(CircuitOpen):
            await breaker.call(answer)
        return breaker.state == "closed"

    await until(is_closed)
