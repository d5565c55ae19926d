from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.concurrency import loop_load
from chassis.concurrency.loop_load import LOOK_EVERY_S, SHORT_ABOVE, LoopLoad, thread_busy_s

if TYPE_CHECKING:
    from pathlib import Path


class Thread:
    """A loop's thread whose time is the test's.

    Attributes:
        now_s: the clock.
        busy_s: for how long it has run or waited for a core.
        looks: how often it was measured.
    """

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.busy_s = 20.0
        self.looks = 0
        self.load = LoopLoad(busy_s=self._look, now_s=lambda: self.now_s)

    def _look(self) -> float:
        self.looks += 1
        return self.busy_s

    def passes(self, seconds: float, *, busy: float) -> bool:
        """Let time pass, of which this share is busy; return whether the loop is then short of CPU."""
        self.now_s += seconds
        self.busy_s += seconds * busy
        return self.load.is_short_of_cpu()


def test_a_loop_is_not_short_of_cpu_before_it_was_measured() -> None:
    assert not Thread().load.is_short_of_cpu()


def test_a_loop_is_short_of_cpu_while_its_thread_is_busy_for_more_than_half_of_the_time() -> None:
    thread = Thread()
    thread.passes(0, busy=0)

    assert [thread.passes(0.1, busy=busy) for busy in (0.45, 0.55, 1.0, 0.45)] == [False, True, True, False]


def test_a_pause_without_calls_counts_as_idle() -> None:
    thread = Thread()
    thread.passes(0, busy=0)
    assert thread.passes(0.1, busy=1)

    assert not thread.passes(10, busy=0.01)


@given(asks=st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 1)), max_size=60))
def test_a_loop_is_measured_at_most_once_in_50_ms_and_judged_by_what_was_measured(
    asks: list[tuple[float, float]],
) -> None:
    thread = Thread()
    thread.passes(0, busy=0)
    looked_s, busy_s, expected = thread.now_s, thread.busy_s, False

    for seconds, busy in asks:
        is_short = thread.passes(seconds, busy=busy)

        if thread.now_s - looked_s >= LOOK_EVERY_S:
            expected = thread.busy_s - busy_s > SHORT_ABOVE * (thread.now_s - looked_s)
            looked_s, busy_s = thread.now_s, thread.busy_s
        assert is_short == expected
    assert thread.looks <= 1 + (thread.now_s - 1000) / LOOK_EVERY_S


def test_a_thread_that_works_is_busy_and_one_that_sleeps_is_not() -> None:
    before_s, until = thread_busy_s(), time.monotonic() + 0.1
    while time.monotonic() < until:
        pass
    worked_s = thread_busy_s() - before_s

    before_s = thread_busy_s()
    threading.Event().wait(0.3)  # what is measured is that nothing is done meanwhile

    # It worked or, on a busy machine, waited for a core.
    assert worked_s > 0.05
    assert thread_busy_s() - before_s < 0.15


@pytest.mark.parametrize("content", [None, "", "nothing", "0"])
def test_without_the_kernels_figures_the_threads_own_time_counts(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "schedstat"
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(loop_load, "_SCHEDSTAT", file)

    before_s, busy_s, after_s = time.thread_time(), thread_busy_s(), time.thread_time()

    assert before_s <= busy_s <= after_s


def test_the_wait_for_a_core_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "schedstat"
    file.write_text("123 5000000000 7\n")
    monkeypatch.setattr(loop_load, "_SCHEDSTAT", file)

    assert 0 <= thread_busy_s() - 5 - time.thread_time() + 0.1 < 0.2
