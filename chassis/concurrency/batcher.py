"""Concurrent calls become one: one statement, or one call of another service, for all that wait.

A call that finds nothing going on is run at once. While calls come in company the next ones are waited for, so that a
batch has many: until it has as many as there usually are at a time, or a moment has passed. What is waiting has a
bound: past it calls are refused, rather than answered too late. Calls whose caller has left, or whose deadline has
passed, are not run.

A batch that fails is run again one by one, so that a call that makes its batch fail is the only one to hear of it.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from chassis.context import current_call, set_batch_deadline
from chassis.errors import DeadlineExceeded, OutcomeUnknown, Overloaded, Unavailable
from chassis.telemetry import metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")

_NEVER: Final = float("inf")
# How long ago a call must have met another one for the next to be waited for. Long enough that a batch of one, of which
# there are some in every load, does not end it.
_COMPANY_S: Final = 0.05
# How much of the usual number of calls a batch with fewer takes away.
_FORGETS: Final = 0.1

# Of calls that are run one by one: after so many in a row that found nothing answering it is no row's fault, and the
# others are told the same, instead of each waiting for it.
_HOPELESS: Final = 2


class RunAlone(Exception):
    """The answer to an item that would keep the others of its batch waiting: it is to be run by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How calls are put together.

    Attributes:
        linger_s: how long the first call of a batch waits for others, while calls come in company.
        max_items: of one batch.
        max_waiting: calls that wait for a batch or are run one by one; more are refused.
        at_once: batches at a time.
    """

    linger_s: float
    max_items: int
    max_waiting: int
    at_once: int


class Batcher(Generic[Item, Result]):
    """Puts concurrent calls together. Belongs to one event loop.

    Args:
        together: runs a batch: gives the answers to the items, in their order; an exception among them is raised to
            that caller alone. Must not look at the call being served: a batch serves many.
        name: of the batches, for metrics and traces: one of a few in the code.
        alone: the same, for a batch that failed and for what was answered with RunAlone: called with one item at a
            time. Without, the failure of a batch is everybody's.
        limits: how calls are put together.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        name: str,
        alone: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]] | None = None,
        limits: BatchLimits,
    ) -> None:
        self._name = name
        self._together = together
        self._alone = alone
        self._limits = limits
        # In the order of arrival; a dict, because who leaves is taken out of the middle.
        self._waiting: dict[_Call[Item, Result], None] = {}
        self._running = 0
        self._running_alone = 0
        self._company_at_s = -_NEVER
        # Calls at a time, of late: when so many wait, no other is to be expected.
        self._usual = 0.0
        self._in_batches = 0
        self._wakeup: asyncio.Handle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Result:
        """Return the answer to this item.

        Raises:
            Overloaded: too many calls wait already.
            DeadlineExceeded: its turn came too late.
            Exception: what its answer was.
        """
        if len(self._waiting) + self._running_alone >= self._limits.max_waiting:
            raise Overloaded
        call: _Call[Item, Result] = _Call(item)
        if self._waiting or self._running:
            self._company_at_s = time.monotonic()
        self._waiting[call] = None
        self._usual = max(self._usual, len(self._waiting) + self._in_batches)
        self._plan()
        try:
            return await call.answer
        finally:
            # Whoever leaves, leaves at once: otherwise callers who give up fill the place of those who wait.
            self._waiting.pop(call, None)

    def _plan(self) -> None:
        """Have the next batch sent: at once if nobody else is to be expected or if it is full, else after a moment."""
        if self._running >= self._limits.at_once or not self._waiting:
            return
        is_complete = len(self._waiting) >= min(self._limits.max_items, round(self._usual))
        if self._wakeup is not None:
            if not is_complete:
                return
            self._wakeup.cancel()
        loop = asyncio.get_running_loop()
        if not is_complete and time.monotonic() - self._company_at_s < _COMPANY_S:
            self._wakeup = loop.call_later(self._limits.linger_s, self._send)
        else:
            # Not here and now: calls that arrive in the same turn of the loop come along for nothing.
            self._wakeup = loop.call_soon(self._send)

    def _send(self) -> None:
        self._wakeup = None
        batch = self._next_batch()
        if not batch:
            return
        self._running += 1
        self._in_batches += len(batch)
        self._usual += (len(batch) - self._usual) * _FORGETS
        # A batch of one is still its caller's: request id, trace and deadline go along. One of many is nobody's.
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
        try:
            answers = await self._answers(self._together, batch)
        except Exception as error:  # noqa: BLE001  whatever it is, it is the callers'
            # What may have happened must not be done again, and what fails alone fails again.
            is_everybodys = self._alone is None or len(batch) == 1 or isinstance(error, OutcomeUnknown)
            answers = [error if is_everybodys else RunAlone()] * len(batch)
        finally:
            self._running -= 1
            self._in_batches -= len(batch)
            self._plan()
        apart: list[_Call[Item, Result]] = []
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, RunAlone):
                apart.append(call)
            else:
                call.complete(answer)
        if apart:
            # Beside the batches to come, which do not wait for it.
            self._start(self._run_one_by_one(apart), contextvars.Context())

    async def _run_one_by_one(self, calls: Sequence[_Call[Item, Result]]) -> None:
        run = self._alone or self._together
        failures: list[Exception] = []  # in a row, of the last calls
        self._running_alone += len(calls)
        for call in calls:
            if len(failures) >= _HOPELESS:
                call.complete(failures[-1])
            elif call.is_still_wanted(time.monotonic()):
                set_batch_deadline(call.deadline)
                try:
                    [answer] = await self._answers(run, [call])
                except Exception as error:  # noqa: BLE001  whatever it is, it is this caller's
                    answer = error
                call.complete(answer)
                failures = [*failures, answer] if isinstance(answer, Unavailable) else []
            self._running_alone -= 1

    async def _answers(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        batch: Sequence[_Call[Item, Result]],
    ) -> Sequence[Result | Exception]:
        """Return the answers to a batch. The one place where a batch is run, alone or together."""
        metrics.batch_ran(self._name, size=len(batch))
        try:
            with tracing.batch_span(self._name, [call.serving for call in batch if call.serving]):
                answers = await run([call.item for call in batch])
        except asyncio.CancelledError:
            # The service stops: nobody is to wait for what will not come.
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
        """Return whether the caller waits. One whose deadline has passed is told so."""
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
