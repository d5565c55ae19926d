"""A group of consumers at a Redis stream: who shares the group gets each entry, until one of them acknowledges it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from redis.exceptions import ResponseError

from chassis.broker import FIELD, watermark_of
from chassis.cloudevents import CloudEvent, Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio import Redis

_MANY: Final = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the stream, as it was delivered.

    Attributes:
        id: Redis's.
        text: the event as it was sent.
        attempts: how often it was delivered, this time included.
    """

    id: str
    text: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that the group could not take.

    Attributes:
        event: as it was sent.
        reason: the class of the error, or GAP when the event before it never came.
        attempts: how often it was tried.
        at: when it was given up.
    """

    event: str
    reason: str
    attempts: int
    at: str

    @property
    def title(self) -> str:
        """What it is about, for a person; nothing of the event's data."""
        try:
            event = CloudEvent.from_json(self.event)
        except Malformed:
            return "no event of ours"
        return f"{event.type} {event.subject} {event.sequence}"

    @property
    def sequence(self) -> int:
        """The event's, or 0."""
        try:
            return CloudEvent.from_json(self.event).sequence
        except Malformed:
            return 0


class ConsumerGroup:
    """One group at one stream. Needs Redis 7.

    Every consumer has the same name: what is pending is taken over by its age, whoever had it.

    Args:
        broker: with decoded responses.
        stream: what is read.
        group: who shares it: a service.
    """

    def __init__(self, broker: Redis, *, stream: str, group: str) -> None:
        self.stream: Final = stream
        self.group: Final = group
        self._dead: Final = f"{stream}:dead:{group}"
        self._broker: Final = broker

    async def join(self) -> None:
        """Make the group unless there is one. It begins with the first event that there is."""
        try:
            await self._broker.xgroup_create(self.stream, self.group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read(self, *, count: int, wait_s: float) -> list[Entry]:
        """Return entries that nobody has got yet; none if none has come in time."""
        names = (self.group, self.group)
        answer: Any = await self._broker.xreadgroup(*names, {self.stream: ">"}, count=count, block=round(1000 * wait_s))
        return [_entry(raw, attempts=1) for _, entries in answer or () for raw in entries]

    async def pending_count(self) -> int:
        """Return how many entries were delivered and not acknowledged."""
        answer: Any = await self._broker.xpending(self.stream, self.group)
        return int(answer["pending"])

    async def take_over(self, *, pause_s: Callable[[int], float]) -> list[Entry]:
        """Return what was delivered and not acknowledged, and has rested since for as long as its attempts ask for."""
        shortest_ms = round(1000 * pause_s(1))
        pending: Any = await self._broker.xpending_range(
            self.stream, self.group, min="-", max="+", count=_MANY, idle=shortest_ms
        )
        attempts = {
            each["message_id"]: each["times_delivered"] + 1
            for each in pending
            if each["time_since_delivered"] >= 1000 * pause_s(each["times_delivered"])
        }
        if not attempts:
            return []
        # Nobody else's: whoever claimed one meanwhile has made it young again.
        claimed: Any = await self._broker.xclaim(self.stream, self.group, self.group, shortest_ms, list(attempts))
        return [_entry(raw, attempts=attempts[raw[0]]) for raw in claimed if raw]

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Be done with the entries."""
        if entries:
            await self._broker.xack(self.stream, self.group, *(entry.id for entry in entries))

    async def watermark(self) -> datetime | None:
        """Return the time up to which the stream is complete; None if nobody has said."""
        found: Any = await self._broker.get(watermark_of(self.stream))
        return datetime.fromisoformat(found) if found else None

    async def bury(self, entry: Entry, letter: DeadLetter) -> None:
        """Be done with the entry, and keep it as a dead letter."""
        async with self._broker.pipeline(transaction=True) as both:
            both.xadd(self._dead, cast("dict[Any, Any]", asdict(letter)))
            both.xack(self.stream, self.group, entry.id)
            await both.execute()

    async def dead_letters(self) -> dict[str, DeadLetter]:
        """Return the dead letters by the id of their entry, oldest first."""
        entries: Any = await self._broker.xrange(self._dead)
        return {entry: _letter(fields) for entry, fields in entries}

    async def has_dead_letters(self) -> bool:
        """Return whether there is one."""
        return bool(await self._broker.xlen(self._dead))

    async def requeue(self) -> int:
        """Send each dead letter to the stream once more, in the order of their sequences; return how many.

        Other groups get them too, and know them.
        """
        letters = await self.dead_letters()
        for entry, letter in sorted(letters.items(), key=lambda each: each[1].sequence):
            async with self._broker.pipeline(transaction=True) as both:
                both.xadd(self.stream, {FIELD: letter.event})
                both.xdel(self._dead, entry)
                await both.execute()
        return len(letters)


def _entry(raw: tuple[str, dict[str, str]], *, attempts: int) -> Entry:
    return Entry(id=raw[0], text=raw[1].get(FIELD, ""), attempts=attempts)


def _letter(fields: dict[str, str]) -> DeadLetter:
    return DeadLetter(event=fields["event"], reason=fields["reason"], attempts=int(fields["attempts"]), at=fields["at"])
