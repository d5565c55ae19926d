"""Background work is repeated, pauses longer while it fails, and tells of an outage twice: when it begins and ends."""

from __future__ import annotations

import ast
import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
from structlog.testing import capture_logs

from chassis.runtime.periodic import Failures, backoff_s, every, pause
from tests.support.guards import require_explained, sources
from tests.support.stepped_loop import SteppedLoop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERY_S: Final = 10.0
TURNS: Final = 10  # more than a round of work takes
# Loops of the chassis that wait in a coroutine and are not made by `every`, each with the reason. Those of a service
# are in its guards.toml, in [waiting_loops].
HAND_WRITTEN: Final = {
    "chassis/runtime/periodic.py every": "the one way to do it",
    "chassis/telemetry/metrics/process.py measure_loop_lag_forever": "measures the pause itself",
    "chassis/testing/__init__.py until": "ends as soon as a condition holds",
    "chassis/database/loop_connection.py wait": "looks again at a socket while it waits for its event",
}


class Works:
    """Work that does what a list says, and notes when."""

    def __init__(self, loop: SteppedLoop, *outcomes: Exception | bool | None) -> None:
        self.loop = loop
        self.outcomes = list(outcomes)
        self.at: list[float] = []

    async def __call__(self) -> bool | None:
        self.at.append(self.loop.time() - 1000)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def loop() -> Iterator[SteppedLoop]:
    stepped = SteppedLoop()
    yield stepped
    for task in asyncio.all_tasks(stepped):
        task.cancel()
    stepped.turn(TURNS)
    stepped.close()


def failing(**given: Any) -> Failures:
    return Failures(**{"failed": "work.failed", "recovered": "work.recovered", **given})


def passes(loop: SteppedLoop, seconds: float, *, step_s: float = 0.5) -> None:
    for _ in range(round(seconds / step_s)):
        loop.advance(step_s)
        loop.turn(TURNS)


def begun(loop: SteppedLoop, work: Works, **given: Any) -> asyncio.Task[None]:
    task = loop.create_task(every(EVERY_S, work, **given))
    loop.turn(TURNS)
    return task


def test_work_is_done_at_once_and_after_each_pause(loop: SteppedLoop) -> None:
    work = Works(loop)
    begun(loop, work, failures=failing())

    passes(loop, 25)

    assert work.at == [0, 10, 20]


def test_work_that_has_more_to_do_goes_on_without_a_pause(loop: SteppedLoop) -> None:
    work = Works(loop, True, True, False, True)
    begun(loop, work, failures=failing())

    passes(loop, 15)

    assert work.at == [0, 0, 0, 10, 10]


def test_pauses_double_while_work_fails_and_are_the_usual_ones_afterwards(loop: SteppedLoop) -> None:
    work = Works(loop, *[OSError()] * 5)
    begun(loop, work, failures=failing(first_s=1, longest_s=5))

    passes(loop, 30)

    assert work.at == [0, 1, 3, 7, 12, 17, 27]


def test_without_a_backoff_the_pause_after_a_failure_is_the_usual_one(loop: SteppedLoop) -> None:
    work = Works(loop, OSError(), OSError())
    begun(loop, work, failures=failing())

    passes(loop, 25)

    assert work.at == [0, 10, 20]


def test_the_next_outage_begins_with_the_first_pause_again(loop: SteppedLoop) -> None:
    work = Works(loop, OSError(), OSError(), True, OSError())
    begun(loop, work, failures=failing(first_s=1))

    passes(loop, 5)

    assert work.at == [0, 1, 3, 3, 4]


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(loop: SteppedLoop) -> None:
    first = OSError("the first")
    work = Works(loop, None, first, OSError(), OSError(), None, None, OSError())
    failures = failing(fields=lambda: {"stream": "orders"})
    with capture_logs() as logs:
        begun(loop, work, failures=failures)
        passes(loop, 65)

    assert logs == [
        {"event": "work.failed", "log_level": "warning", "stream": "orders", "exc_info": first},
        {"event": "work.recovered", "log_level": "info", "stream": "orders", "failures": 3},
        {"event": "work.failed", "log_level": "warning", "stream": "orders", "exc_info": logs[2]["exc_info"]},
    ]
    assert failures.count == 1


def test_work_whose_success_logs_by_itself_has_no_second_line(loop: SteppedLoop) -> None:
    with capture_logs() as logs:
        begun(loop, Works(loop, OSError()), failures=failing(recovered=None))
        passes(loop, 15)

    assert [line["event"] for line in logs] == ["work.failed"]


def test_an_error_that_is_not_named_ends_the_work(loop: SteppedLoop) -> None:
    defect = LookupError()
    work = Works(loop, OSError(), defect)
    with capture_logs() as logs:
        task = begun(loop, work, failures=failing(errors=(OSError,)))
        passes(loop, 30)

    assert task.exception() is defect
    assert work.at == [0, 10]
    assert len(logs) == 1


@pytest.mark.parametrize("is_failing", [False, True])
def test_a_cancel_ends_a_pause_and_is_no_failure(loop: SteppedLoop, *, is_failing: bool) -> None:
    failures = failing()
    task = begun(loop, Works(loop, OSError() if is_failing else None), failures=failures)

    task.cancel()
    loop.turn(TURNS)

    assert task.cancelled()
    assert failures.count == is_failing


def test_a_cancel_ends_work_that_waits(loop: SteppedLoop) -> None:
    failures = failing()

    async def wait() -> None:
        await asyncio.Event().wait()

    task = loop.create_task(every(EVERY_S, wait, failures=failures))
    loop.turn(TURNS)
    task.cancel()
    loop.turn(TURNS)

    assert task.cancelled()
    assert failures.count == 0


@pytest.mark.parametrize("outcome", [None, OSError()])
def test_an_event_that_stops_it_ends_the_pause_at_once(loop: SteppedLoop, outcome: Exception | None) -> None:
    stopping = asyncio.Event()
    work = Works(loop, outcome)
    task = begun(loop, work, failures=failing(), stopping=stopping)

    passes(loop, 3)
    stopping.set()
    loop.turn(TURNS)

    assert task.done()
    assert task.exception() is None
    assert work.at == [0]


def test_a_round_that_has_begun_is_finished_before_it_stops(loop: SteppedLoop) -> None:
    stopping, may_finish, finished = asyncio.Event(), asyncio.Event(), []

    async def work() -> bool:
        await may_finish.wait()
        finished.append(True)
        return True

    task = loop.create_task(every(EVERY_S, work, failures=failing(), stopping=stopping))
    loop.turn(TURNS)
    stopping.set()
    loop.turn(TURNS)
    was_done_before = task.done()
    may_finish.set()
    loop.turn(TURNS)

    assert not was_done_before
    assert task.done()
    assert finished == [True]


def test_what_is_stopped_before_it_begins_does_nothing(loop: SteppedLoop) -> None:
    stopping = asyncio.Event()
    stopping.set()
    work = Works(loop)

    task = begun(loop, work, failures=failing(), stopping=stopping)

    assert task.done()
    assert work.at == []


def test_a_pause_with_an_event_lasts_its_time(loop: SteppedLoop) -> None:
    task = loop.create_task(pause(3, asyncio.Event()))
    loop.turn(TURNS)

    passes(loop, 2.5)
    was_done_before = task.done()
    passes(loop, 0.5)

    assert not was_done_before
    assert task.done()


def test_a_backoff_doubles_up_to_its_bound_however_many_attempts_there_were() -> None:
    pauses = [backoff_s(attempts, first_s=0.2, longest_s=5) for attempts in (1, 2, 3, 5, 6, 10, 10_000)]

    assert pauses == [0.2, 0.4, 0.8, 3.2, 5, 5, 5]


def waiting_loops(path: Path) -> Iterator[str]:
    """Yield the coroutines that have a loop without an end of its own, with a pause in it."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.While) and any(map(is_pause, ast.walk(node))):
                    yield function.name


def is_pause(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"sleep", "pause"}


def test_background_work_is_repeated_by_this_module_alone() -> None:
    found = {f"{where} {name}" for where, path in sources() for name in waiting_loops(path)}

    require_explained(found, HAND_WRITTEN, table="waiting_loops")


def test_the_search_for_loops_finds_one(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("async def look_for_ever():\n    while not stopping.is_set():\n        await pause(stopping, 1)\n")

    assert list(waiting_loops(path)) == ["look_for_ever"]
