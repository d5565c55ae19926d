"""Concurrent calls become one: one statement, or one call of another service, for all that wait.

A call that finds no other is run at once, and calls that arrive while a batch runs form the next one. If waiting pays,
because CPU is short, a batch also waits for more calls while calls overlap: until it has as many as usually run at a
time, or a moment has passed. The number of waiting calls is bounded: more are refused, rather than answered too late.
Calls whose caller has left, or whose deadline has passed, are not run.

If a batch fails, its calls are run again one by one, so that a call that makes its batch fail is the only one that gets
the error.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

from chassis.context import current_call, set_batch_deadline
from chassis.errors import DeadlineExceeded, OutcomeUnknown, Overloaded, Unavailable
from chassis.telemetry import tracing
from chassis.telemetry.metrics.database import batch_ran

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


class _RetryAlone(enum.Enum):
    RETRY_ALONE = enum.auto()


RETRY_ALONE: Final = _RetryAlone.RETRY_ALONE
"""The answer to an item that would make the others of its batch wait: it is run again, alone."""
Answer: TypeAlias = Result | Exception | Literal[_RetryAlone.RETRY_ALONE]

_NEVER: Final = float("inf")
# If two calls overlapped this recently, the next call waits for others. Long enough that one batch of a single call,
# which every load has, does not end the waiting.
_OVERLAP_MEMORY_S: Final = 0.05
# How far the expected size of a batch moves towards the size of each batch that is sent.
_EXPECTATION_DECAY: Final = 0.1

# If calls of a failed batch are run one by one and this many in a row are Unavailable, the rest fail with the same
# error: the dependency is down, no row is to blame, and each of them would wait for it.
_GIVE_UP_AFTER: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How calls are put together.

    Attributes:
        linger_s: how long the first call of a batch waits for others, while calls overlap and waiting pays.
        pays_to_wait: whether a larger batch saves what is scarce now. Asked for each batch that could wait.
        max_items: of one batch.
        max_waiting: calls that wait for a batch or are run one by one; more are refused.
        at_once: batches at a time.
    """

    linger_s: float
    pays_to_wait: Callable[[], bool]
    max_items: int
    max_waiting: int
    at_once: int


class Batcher(Generic[Item, Result]):
    """Puts concurrent calls together. Belongs to one event loop.

    Args:
        together: runs a batch: gives the answers to the items, in their order; an exception among them is raised to
            that caller alone. Must not use the current call: a batch serves many.
        name: of the batches, for metrics and traces: one of a few in the code.
        alone: the same, for a batch that failed and for items that were answered with RETRY_ALONE: gets one item at a
            time.
        limits: how calls are put together.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Item]], Awaitable[Sequence[Answer[Result]]]],
        *,
        name: str,
        alone: Callable[[Sequence[Item]], Awaitable[Sequence[Answer[Result]]]],
        limits: BatchLimits,
    ) -> None:
        self._name = name
        self._together = together
        self._alone = alone
        self._limits = limits
        # In the order of arrival; a dict, because a caller that leaves is removed from the middle.
        self._waiting: dict[_Call[Item, Result], None] = {}
        self._running = 0
        self._running_alone = 0
        self._last_overlap_s = -_NEVER
        # Decaying maximum of concurrent calls. Once this many wait, the batch is sent: no other is likely to come.
        self._expected_size = 0.0
        self._in_batches = 0
        self._wakeup: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """Return the answer to this item.

        Raises:
            Overloaded: too many calls wait already.
            DeadlineExceeded: the deadline passed before the item was run.
            Exception: the answer was one.
        """
        if len(self._waiting) + self._running_alone >= self._limits.max_waiting:
            raise Overloaded
        call: _Call[Item, Result] = _Call(item)
        if self._waiting or self._running:
            self._last_overlap_s = time.monotonic()
        self._waiting[call] = None
        self._expected_size = max(self._expected_size, len(self._waiting) + self._in_batches)
        self._plan()
        try:
            return await call.answer
        finally:
            # A caller that leaves gives up its place at once: otherwise the abandoned fill the places of the waiting.
            self._waiting.pop(call, None)

    def _plan(self) -> None:
        """Schedule the next batch: after a moment if others are expected and waiting for them pays, else at once."""
        if self._running >= self._limits.at_once or not self._waiting:
            return
        is_complete = len(self._waiting) >= min(self._limits.max_items, round(self._expected_size))
        if self._wakeup is not None:
            if not is_complete:
                return
            self._wakeup.cancel()
        loop = asyncio.get_running_loop()
        if not is_complete and self._calls_overlap() and self._limits.pays_to_wait():
            self._wakeup = loop.call_later(self._limits.linger_s, self._send)
        else:
            # In the next turn of the loop, not now: calls that arrive in this turn join the batch for nothing.
            self._wakeup = loop.call_soon(self._send)

    def _calls_overlap(self) -> bool:
        return time.monotonic() - self._last_overlap_s < _OVERLAP_MEMORY_S

    def _send(self) -> None:
        self._wakeup = None
        batch = self._next_batch()
        if not batch:
            return
        self._running += 1
        self._in_batches += len(batch)
        self._expected_size += (len(batch) - self._expected_size) * _EXPECTATION_DECAY
        # A batch of one keeps its caller's context: request id, trace and deadline. A batch of many has none.
        context = batch[0].context if len(batch) == 1 else contextvars.Context()
        if len(batch) > 1:
            context.run(set_batch_deadline, max([call.deadline for call in batch]))
        self._start(self._run(batch), context)
        self._plan()

    def _next_batch(self) -> list[_Call[Item, Result]]:
        now = time.monotonic()
        batch: list[_Call[Item, Result]] = []
        while self._waiting and len(batch) < self._limits.max_items:
            call = next(iter(self._waiting))
            del self._waiting[call]
            if call.is_still_wanted(now):
                batch.append(call)
        return batch

    async def _run(self, batch: Sequence[_Call[Item, Result]]) -> None:
        """Run a batch and answer its calls."""
        answers: Sequence[Answer[Result]]
        try:
            answers = await self._answers(self._together, batch)
        except Exception as error:  # noqa: BLE001  whatever it is, its callers get it
            # Do not retry one by one if the batch may have been committed, or had a single call.
            fails_whole_batch = len(batch) == 1 or isinstance(error, OutcomeUnknown)
            answers = [error if fails_whole_batch else RETRY_ALONE] * len(batch)
        finally:
            self._running -= 1
            self._in_batches -= len(batch)
            self._plan()
        apart: list[_Call[Item, Result]] = []
        for call, answer in zip(batch, answers, strict=True):
            if answer is RETRY_ALONE:
                apart.append(call)
            else:
                call.complete(answer)
        if apart:
            # Beside the next batches, which do not wait for it.
            self._start(self._run_one_by_one(apart), contextvars.Context())

    async def _run_one_by_one(self, calls: Sequence[_Call[Item, Result]]) -> None:
        failures: list[Exception] = []  # in a row, of the last calls
        self._running_alone += len(calls)
        for call in calls:
            if len(failures) >= _GIVE_UP_AFTER:
                call.complete(failures[-1])
            elif call.is_still_wanted(time.monotonic()):
                answer = await self._answer_alone(call)
                call.complete(answer)
                failures = [*failures, answer] if isinstance(answer, Unavailable) else []
            self._running_alone -= 1

    async def _answer_alone(self, call: _Call[Item, Result]) -> Result | Exception:
        set_batch_deadline(call.deadline)
        try:
            [answer] = await self._answers(self._alone, [call])
        except Exception as error:  # noqa: BLE001  whatever it is, its caller gets it
            return error
        if answer is RETRY_ALONE:
            return AssertionError("an item that runs alone was answered with RETRY_ALONE")
        return answer

    async def _answers(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer[Result]]]],
        batch: Sequence[_Call[Item, Result]],
    ) -> Sequence[Answer[Result]]:
        """Return the answers to a batch. The one place where a batch is run, alone or together."""
        batch_ran(self._name, size=len(batch))
        try:
            with tracing.batch_span(self._name, [call.serving for call in batch if call.serving]):
                answers = await run([call.item for call in batch])
        except asyncio.CancelledError:
            # The service stops, and no answer will come.
            for call in batch:
                call.answer.cancel()
            raise
        if len(answers) != len(batch):
            raise AssertionError(f"{len(answers)} answers to {len(batch)} items")
        return answers

    def _start(self, work: Coroutine[None, None, None], context: contextvars.Context) -> None:
        # The loop itself keeps no task alive.
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Call(Generic[Item, Result]):
    """One call that waits for its answer."""

    __slots__ = ("answer", "context", "deadline", "item", "serving")

    def __init__(self, item: Item) -> None:
        self.serving = serving = current_call()
        self.item = item
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.context = contextvars.copy_context()
        self.deadline = _NEVER if serving is None else serving.deadline

    def is_still_wanted(self, now: float) -> bool:
        """Return whether the caller still waits. If its deadline has passed, it gets DeadlineExceeded."""
        if self.deadline <= now:
            self.complete(DeadlineExceeded())
        return not self.answer.done()

    def complete(self, answer: Result | Exception) -> None:
        """Give the caller the answer, unless it has left."""
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)
