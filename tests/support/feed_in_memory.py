"""A changefeed without a database: the test decides what is committed, and when each poll is answered."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chassis.watch.feed import START, FeedEvent, Page, Position, PositionLost

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Question:
    """A read that waits for its answer.

    Attributes:
        asked: what the feed held when it was asked.
        look: returns what the feed holds now.
        answer: for the reader.
    """

    asked: Any
    look: Callable[[], Any]
    answer: asyncio.Future[Any]

    def settle(self, *, is_late: bool = True, error: Exception | None = None) -> None:
        """Answer with what the feed holds now, or held when it was asked, or with an error."""
        if not self.answer.done():  # or the reader has left
            outcome = error or (self.look() if is_late else self.asked)
            if isinstance(outcome, Exception):
                self.answer.set_exception(outcome)
            else:
                self.answer.set_result(outcome)


class FeedInMemory:
    """The rows of the outbox that Changefeed reads.

    Attributes:
        timeline: every event since the last restore, and those before that survived it; the swept ones too.
        swept: how many of them, from the first on, were removed.
        past: the timelines that ended with a restore.
        questions: that wait for an answer; none ever waits if `is_prompt`.
    """

    def __init__(self, *, is_prompt: bool = False) -> None:
        self.timeline: list[FeedEvent] = []
        self.swept = 0
        self.past: list[list[FeedEvent]] = []
        self.questions: list[Question] = []
        self.is_prompt = is_prompt

    def commit(self, owner: str, *, kind: str = "shown") -> FeedEvent:
        number = len(self.timeline) + 1  # after a restore the same numbers come again
        position = Position(number, number, uuid.uuid4())
        event = FeedEvent(position, kind, uuid.uuid4(), 1, {}, owner, NOON)
        self.timeline.append(event)
        return event

    def sweep(self, count: int) -> None:
        """Remove the oldest events, but never the newest one."""
        self.swept = max(self.swept, min(self.swept + count, len(self.timeline) - 1))

    def restore(self, count: int) -> None:
        """Lose the newest events, as by a restore or the failover to a replica that was behind."""
        if count and len(self.timeline) - count > self.swept:
            self.past.append(list(self.timeline))
            del self.timeline[-count:]

    def index_of(self, event_id: UUID, timeline: list[FeedEvent] | None = None) -> int | None:
        """Return where the event stands, -1 for the start; None if it is not in the timeline."""
        if event_id == START.id:
            return -1
        ids = [event.position.id for event in (self.timeline if timeline is None else timeline)]
        return ids.index(event_id) if event_id in ids else None

    def stands(self, event_id: UUID) -> bool:
        """Return whether everything after the event is still there."""
        index = self.index_of(event_id)
        return index is not None and (index >= self.swept or self.swept == 0)

    async def newest(self) -> Position:
        return await self._ask(lambda: self.timeline[-1].position if self.timeline else START)

    async def position_of(self, event_id: UUID) -> Position:
        return await self._ask(lambda: self._position_of(event_id))

    async def read(self, after: Position, *, owner: str | None, size: int) -> Page:
        return await self._ask(lambda: self._page(after, owner, size))

    async def renumber_after_restore(self) -> int:
        return await self._ask(lambda: 0)

    def _position_of(self, event_id: UUID) -> Position | PositionLost:
        index = self.index_of(event_id)
        if index is None or not self.stands(event_id):
            return PositionLost()
        return START if index < 0 else self.timeline[index].position

    def _page(self, after: Position, owner: str | None, size: int) -> Page | PositionLost:
        index = self.index_of(after.id)
        if index is None or not self.stands(after.id):
            return PositionLost()
        seen = self.timeline[index + 1 :][:size]
        wanted = [event for event in seen if owner in {None, event.owner}]
        return Page(wanted, seen[-1].position if seen else after, is_last=len(seen) < size)

    async def _ask(self, look: Callable[[], Any]) -> Any:
        question = Question(look(), look, asyncio.get_running_loop().create_future())
        if self.is_prompt:
            question.settle()
            await asyncio.sleep(0)  # a turn of the loop, as an answer of a database takes
        else:
            self.questions.append(question)
        return await question.answer
