from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import context
from chassis.concurrency.batcher import RETRY_ALONE, Batcher, BatchLimits
from chassis.context import Call, current_call
from chassis.errors import DatabaseUnavailable, DeadlineExceeded, OutcomeUnknown, Overloaded
from tests.support import virtual_time
from tests.support.turns import some_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from chassis.concurrency.batcher import Answer

    Answers = Sequence[Answer[str]]

FOR_EVER_S = 3600.0


class Poisoned(Exception):
    """The row of one item makes the whole statement fail."""


class Store:
    """Runs batches as a database does, one step at a time.

    Attributes:
        begun: the items of each run, in the order in which they began.
        effects: how often each item took effect.
        under_way: what has to be told how it ends: whether its connection is lost.
    """

    def __init__(self, *, poisoned: frozenset[int] = frozenset(), locked: frozenset[int] = frozenset()) -> None:
        self._poisoned = poisoned
        self._locked = locked
        self.begun: list[list[int]] = []
        self.effects: Counter[int] = Counter()
        self.under_way: list[asyncio.Future[bool]] = []

    async def together(self, items: Sequence[int]) -> Answers:
        return await self._run(items, locked=self._locked)

    async def alone(self, items: Sequence[int]) -> Answers:
        assert len(items) == 1
        return await self._run(items, locked=frozenset())

    async def _run(self, items: Sequence[int], *, locked: frozenset[int]) -> Answers:
        self.begun.append(list(items))
        end: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.under_way.append(end)
        if await end:
            raise DatabaseUnavailable
        if bad := self._poisoned & set(items):
            raise Poisoned(min(bad))
        self.effects.update(item for item in items if item not in locked)
        return [RETRY_ALONE if item in locked else answer_to(item) for item in items]

    def end_one(self, *, number: int = 0, is_lost: bool = False) -> None:
        if self.under_way:
            self.under_way.pop(number % len(self.under_way)).set_result(is_lost)


def answer_to(item: int) -> str:
    return f"answer to {item}"


def limits(**changes: Any) -> BatchLimits:
    given = {"linger_s": FOR_EVER_S, "pays_to_wait": lambda: True, "max_items": 8, "max_waiting": 100, "at_once": 1}
    return BatchLimits(**{**given, **changes})


def a_batcher(store: Store, **changes: Any) -> Batcher[int, str]:
    return Batcher(store.together, name="test", alone=store.alone, limits=limits(**changes))


async def until_ended(store: Store, calls: Sequence[asyncio.Task[str]]) -> list[str | BaseException]:
    """Let everything end well; return what each call got."""
    async with asyncio.timeout(10):
        while not all(call.done() for call in calls):
            store.end_one()
            await asyncio.sleep(0)  # a turn of the loop, in which a call may ask the store once more
    return await asyncio.gather(*calls, return_exceptions=True)


def submit(batcher: Batcher[int, str], *items: int) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


# Often enough a call leaves while its batch runs, or while the calls of a failed batch are run one by one.
steps = st.one_of(
    st.tuples(st.just("call"), st.integers(2, 5)),
    st.tuples(st.just("leave"), st.integers(0, 30)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.sampled_from(["end", "end", "lose"]), st.integers(0, 3)),
)


@given(
    schedule=st.lists(steps, min_size=12, max_size=40),
    poisoned=st.frozensets(st.integers(0, 30), max_size=4),
    locked=st.frozensets(st.integers(0, 30), max_size=4),
    pays=st.lists(st.booleans(), min_size=1, max_size=8),
    changes=st.fixed_dictionaries({"at_once": st.integers(1, 3), "max_items": st.integers(2, 6)}),
)
def test_each_caller_gets_its_own_answer_exactly_once_in_every_schedule(
    schedule: list[tuple[str, int]],
    poisoned: frozenset[int],
    locked: frozenset[int],
    pays: list[bool],
    changes: dict[str, int],
) -> None:
    store = Store(poisoned=poisoned, locked=locked)
    is_lossy = any(step == "lose" for step, _ in schedule)
    paying = itertools.cycle(pays)

    left, answers = asyncio.run(play(schedule, store, pays_to_wait=lambda: next(paying), **changes))

    ran = {item for batch in store.begun for item in batch}
    for item, answer in enumerate(answers):
        if isinstance(answer, asyncio.CancelledError):
            assert item in left
        elif isinstance(answer, Poisoned):
            assert answer.args == (item,)
            assert item in poisoned
        elif isinstance(answer, DatabaseUnavailable):
            assert is_lossy
        else:
            assert answer == answer_to(item)
            assert store.effects[item] == 1
            assert item not in poisoned
        assert item in ran or item in left or is_lossy
    assert all(times == 1 for times in store.effects.values())
    assert not poisoned & store.effects.keys()


@given(schedule=st.lists(steps, min_size=12, max_size=40), at_once=st.integers(1, 3), max_items=st.integers(2, 6))
def test_no_call_waits_for_time_while_waiting_does_not_pay(
    schedule: list[tuple[str, int]], at_once: int, max_items: int
) -> None:
    never = {"linger_s": FOR_EVER_S, "pays_to_wait": lambda: False}

    # play() passes no time, and fails if a call waits for more than the end of other batches.
    asyncio.run(play(schedule, Store(), at_once=at_once, max_items=max_items, **never))


@given(
    calls=st.lists(st.tuples(st.floats(0, 0.004), st.integers(1, 3)), min_size=1, max_size=30),
    pays=st.lists(st.booleans(), min_size=1, max_size=30),
    at_once=st.integers(1, 3),
)
def test_a_call_waits_at_most_the_linger_for_others(
    calls: list[tuple[float, int]], pays: list[bool], at_once: int
) -> None:
    waits_s: list[float] = []
    paying = itertools.cycle(pays)

    async def serve() -> None:
        async def together(items: Sequence[float]) -> list[str]:
            now_s = asyncio.get_running_loop().time()
            waits_s.extend(now_s - submitted_s for submitted_s in items)
            return [answer_to(0)] * len(items)

        batch_limits = limits(linger_s=0.003, pays_to_wait=lambda: next(paying), at_once=at_once)
        batcher: Batcher[float, str] = Batcher(together, name="test", alone=together, limits=batch_limits)
        submitted = []
        for pause_s, number in calls:
            await asyncio.sleep(pause_s)  # virtual time
            now_s = asyncio.get_running_loop().time()
            submitted += [asyncio.create_task(batcher.submit(now_s)) for _ in range(number)]
        assert await asyncio.gather(*submitted) == [answer_to(0)] * len(submitted)

    virtual_time.run(serve())

    assert len(waits_s) == sum(number for _, number in calls)
    assert max(waits_s) <= 0.003 + 1e-6


@pytest.mark.parametrize("leaves", range(4))
async def test_a_call_cancelled_while_its_batch_runs_shifts_no_answer(leaves: int) -> None:
    store = Store()
    calls = submit(a_batcher(store), *range(4))
    await some_turns()
    assert store.begun == [[0, 1, 2, 3]]

    calls[leaves].cancel()
    answers = await until_ended(store, calls)

    assert [answer for n, answer in enumerate(answers) if n != leaves] == [
        answer_to(item) for item in range(4) if item != leaves
    ]


@pytest.mark.parametrize("leaves", range(4))
async def test_a_call_cancelled_while_a_failed_batch_is_run_one_by_one_shifts_no_answer(leaves: int) -> None:
    store = Store(poisoned=frozenset({3}))
    calls = submit(a_batcher(store), *range(4))
    await some_turns()
    store.end_one()
    await some_turns()

    calls[leaves].cancel()
    answers = await until_ended(store, calls)

    stayed = [(n, answer) for n, answer in enumerate(answers) if n != leaves]
    assert [answer.args if isinstance(answer, Poisoned) else answer for _, answer in stayed] == [
        (3,) if n == 3 else answer_to(n) for n, _ in stayed
    ]


async def play(
    schedule: list[tuple[str, int]], store: Store, **changes: Any
) -> tuple[set[int], list[str | BaseException]]:
    """Return who left before the answer, and what each call got; items are numbered in the order of the calls."""
    batcher = a_batcher(store, **{"linger_s": 0.0, **changes})
    calls: list[asyncio.Task[str]] = []
    left: set[int] = set()
    for step, number in schedule:
        match step:
            case "call":
                calls += submit(batcher, *range(len(calls), len(calls) + number))
            case "leave" if calls:
                calls[number % len(calls)].cancel()
                left.add(number % len(calls))
            case "turn":
                await asyncio.sleep(0)  # a turn of the loop is a step of the schedule
            case "end" | "lose":
                store.end_one(number=number, is_lost=step == "lose")
    for _ in range(100 * (len(calls) + 1)):
        store.end_one()
        await asyncio.sleep(0)  # a turn of the loop: without a linger nothing else passes the time
    assert all(call.done() for call in calls), "somebody waits for ever"
    return left, await asyncio.gather(*calls, return_exceptions=True)


async def test_a_single_call_does_not_linger() -> None:
    store = Store()
    batcher = a_batcher(store)

    for item in range(3):
        assert await until_ended(store, submit(batcher, item)) == [answer_to(item)]

    assert store.begun == [[0], [1], [2]]


async def test_calls_that_arrive_while_a_batch_runs_form_the_next_batch() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.05)
    first = submit(batcher, 1)
    await some_turns()

    rest = submit(batcher, 2, 3, 4)
    await some_turns()

    assert store.begun == [[1]]
    assert await until_ended(store, [*first, *rest]) == [answer_to(item) for item in (1, 2, 3, 4)]
    assert store.begun == [[1], [2, 3, 4]]


async def test_while_batches_are_large_the_next_call_lingers() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.05)
    await until_ended(store, submit(batcher, 1, 2))

    early = submit(batcher, 3)
    await some_turns()
    late = submit(batcher, 4)
    await until_ended(store, [*early, *late])

    assert store.begun == [[1, 2], [3, 4]]


async def test_a_call_that_comes_alone_after_a_rush_does_not_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("chassis.concurrency.batcher.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    batcher = a_batcher(store := Store())
    await until_ended(store, submit(batcher, 1, 2, 3))

    now_s[0] += 1

    assert await until_ended(store, submit(batcher, 4)) == [answer_to(4)]


async def test_while_waiting_does_not_pay_the_next_call_does_not_linger() -> None:
    store = Store()
    batcher = a_batcher(store, pays_to_wait=lambda: False)
    await until_ended(store, submit(batcher, 1, 2))

    early = submit(batcher, 3)
    await some_turns()
    late = submit(batcher, 4)
    await until_ended(store, [*early, *late])

    assert store.begun == [[1, 2], [3], [4]]


async def test_whether_waiting_pays_is_asked_only_for_a_call_that_could_wait() -> None:
    asked: list[int] = []
    store = Store()
    batcher = a_batcher(store, pays_to_wait=lambda: bool(asked.append(1)), max_items=2)

    for item in range(3):  # alone
        await until_ended(store, submit(batcher, item))
    await until_ended(store, submit(batcher, 3, 4))  # a full batch

    assert not asked


async def test_a_full_batch_does_not_linger() -> None:
    store = Store()
    batcher = a_batcher(store, max_items=2)
    await until_ended(store, submit(batcher, 1, 2))

    calls = submit(batcher, 3, 4)

    assert await until_ended(store, calls) == [answer_to(3), answer_to(4)]


async def test_a_batch_of_the_usual_size_does_not_linger() -> None:
    store = Store()
    batcher = a_batcher(store)
    await until_ended(store, submit(batcher, 1, 2, 3))

    calls = submit(batcher, 4, 5, 6)

    assert await until_ended(store, calls) == [answer_to(item) for item in (4, 5, 6)]
    assert store.begun == [[1, 2, 3], [4, 5, 6]]


async def test_fewer_calls_than_usual_linger_until_the_usual_number() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.02)
    await until_ended(store, submit(batcher, 1, 2, 3))
    for _ in range(30):
        await until_ended(store, submit(batcher, 4, 5))

    batcher_that_knows = len(store.begun)
    calls = submit(batcher, 6, 7)
    await some_turns()

    assert store.begun[batcher_that_knows:] == [[6, 7]]
    await until_ended(store, calls)


async def test_no_batch_is_larger_than_it_may_be() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.0, max_items=3)

    await until_ended(store, submit(batcher, *range(10)))

    assert [len(batch) for batch in store.begun] == [3, 3, 3, 1]


async def test_a_full_queue_refuses_until_a_call_leaves() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.05, max_waiting=2)
    running = submit(batcher, 0)
    await some_turns()
    waiting = submit(batcher, 1, 2)
    await some_turns()

    with pytest.raises(Overloaded):
        await batcher.submit(3)
    waiting[0].cancel()
    await some_turns()
    instead = submit(batcher, 4)

    assert await until_ended(store, [*running, waiting[1], *instead]) == [answer_to(item) for item in (0, 2, 4)]


async def test_calls_that_are_run_one_by_one_keep_their_place_in_the_queue() -> None:
    store = Store(poisoned=frozenset({1}))
    batcher = a_batcher(store, max_waiting=2, linger_s=0.0)
    failing = submit(batcher, 1, 2)
    await some_turns()
    store.end_one()
    await some_turns()

    with pytest.raises(Overloaded):
        await batcher.submit(3)

    assert [type(answer) for answer in await until_ended(store, failing)] == [Poisoned, str]
    assert await until_ended(store, submit(batcher, 4)) == [answer_to(4)]


async def test_a_call_cancelled_before_its_batch_is_not_run() -> None:
    store = Store()
    batcher = a_batcher(store, linger_s=0.05)
    running = submit(batcher, 1)
    await some_turns()
    waiting = submit(batcher, 2, 3)
    await some_turns()

    waiting[0].cancel()
    await until_ended(store, [*running, *waiting])

    assert store.begun == [[1], [3]]


async def test_a_call_cancelled_before_its_single_run_is_not_run() -> None:
    store = Store(poisoned=frozenset({1}))
    batcher = a_batcher(store)
    calls = submit(batcher, 1, 2, 3)
    await some_turns()
    store.end_one()
    await some_turns()

    calls[1].cancel()
    await until_ended(store, calls)

    assert store.begun == [[1, 2, 3], [1], [3]]


async def test_a_call_past_its_deadline_fails_and_is_not_run() -> None:
    store = Store()
    batcher = a_batcher(store)

    async def late() -> str:
        context.set_current_call(Call(method="/m", deadline=time.monotonic() - 1))
        return await batcher.submit(1)

    with pytest.raises(DeadlineExceeded):
        await late()

    assert store.begun == []


async def test_concurrent_batches_do_not_wait_for_calls_that_run_one_by_one() -> None:
    store = Store(locked=frozenset({1}))
    batcher = a_batcher(store)
    together = submit(batcher, 1, 2)
    await some_turns()
    store.end_one()
    await some_turns()
    assert store.begun == [[1, 2], [1]]

    others = submit(batcher, *range(3, 11))  # a full batch
    await some_turns()
    store.end_one(number=1)
    await some_turns()

    assert all(call.done() for call in others)
    assert await until_ended(store, together) == [answer_to(1), answer_to(2)]


async def test_without_any_answer_the_calls_are_not_run_one_by_one() -> None:
    store = Store()
    batcher = a_batcher(store)
    calls = submit(batcher, *range(8))
    await some_turns()

    for _ in range(3):
        store.end_one(is_lost=True)
        await some_turns()

    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    assert [len(batch) for batch in store.begun] == [8, 1, 1]


async def test_two_failures_that_are_not_consecutive_do_not_end_the_single_runs() -> None:
    store = Store()
    calls = submit(a_batcher(store), *range(6))
    await some_turns()

    for is_lost in (True, True, False, True, False, True, False):
        store.end_one(is_lost=is_lost)
        await some_turns()

    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(answer, DatabaseUnavailable) for answer in answers] == [True, False, True, False, True, False]


async def test_a_call_cancelled_before_its_single_run_frees_its_place() -> None:
    store = Store(poisoned=frozenset({1}))
    batcher = a_batcher(store, max_waiting=2, linger_s=0.0)
    failing = submit(batcher, 1, 2)
    await some_turns()
    store.end_one()
    await some_turns()
    failing[1].cancel()
    await until_ended(store, failing)

    others = submit(batcher, 3, 4)

    assert await until_ended(store, others) == [answer_to(3), answer_to(4)]


async def test_a_batch_of_unknown_outcome_is_not_repeated() -> None:
    begun: list[list[int]] = []

    async def together(items: Sequence[int]) -> Answers:
        begun.append(list(items))
        raise OutcomeUnknown

    batcher: Batcher[int, str] = Batcher(together, name="test", alone=together, limits=limits())

    outcomes = await asyncio.gather(*submit(batcher, 1, 2), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]
    assert begun == [[1, 2]]


async def test_a_batch_of_one_belongs_to_its_call_and_one_of_many_to_none() -> None:
    served: list[str] = []

    async def together(items: Sequence[str]) -> list[str]:
        call = current_call()
        served.append(call.request_id if call else "")
        return list(items)

    batcher: Batcher[str, str] = Batcher(together, name="test", alone=together, limits=limits(linger_s=0.0))

    async def serve(request_id: str) -> str:
        context.set_current_call(Call(method="/m", deadline=time.monotonic() + 60, request_id=request_id))
        return await batcher.submit(request_id)

    await asyncio.create_task(serve("a"))
    await asyncio.gather(serve("b"), serve("c"))

    assert served == ["a", ""]


async def test_a_batch_has_the_latest_deadline_of_its_callers_and_a_single_run_its_own() -> None:
    async def together(items: Sequence[int]) -> list[Answer[int]]:
        seen.append(round(context.time_left_s(), -1))
        return [RETRY_ALONE if seen == [60] else item for item in items]

    seen: list[float] = []
    batcher: Batcher[int, int] = Batcher(together, name="test", alone=together, limits=limits(linger_s=0.0))

    async def serve(left_s: float) -> int:
        context.set_current_call(Call(method="/m", deadline=time.monotonic() + left_s))
        return await batcher.submit(1)

    await asyncio.gather(serve(20), serve(60))

    assert seen == [60, 20, 60]


@pytest.mark.parametrize("answers", [[], ["one", "two"]])
async def test_a_wrong_number_of_answers_is_a_defect(answers: list[str]) -> None:
    async def together(_items: Sequence[int]) -> list[str]:
        return answers

    batcher: Batcher[int, str] = Batcher(together, name="test", alone=together, limits=limits())

    with pytest.raises(AssertionError, match="answers to 1 items"):
        await batcher.submit(1)


async def test_a_stop_ends_every_waiting_call() -> None:
    def gone() -> Awaitable[Answers]:
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        future.cancel()
        return future

    async def together(_items: Sequence[int]) -> Answers:
        return await gone()

    batcher: Batcher[int, str] = Batcher(together, name="test", alone=together, limits=limits())

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(batcher.submit(1), timeout=10)
