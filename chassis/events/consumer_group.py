"""A group of consumers of a Redis stream: each entry is delivered to one of them, repeatedly until acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from chassis.events import replay
from chassis.events.redis_streams import AFTER, FIELD, START, EntryId, key_beside, watermark_entry_of, watermark_of
from chassis.events.stream import APPEND_AGAIN, LOOK, PLACE, READ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redis.asyncio import Redis

    from chassis.events.replay import Page

# Pending entries that one XPENDING returns, and that one claim_stale() claims at most.
_PAGE: Final = 1000
# XPENDINGs of one claim_stale(): then new entries have their turn.
_PAGES: Final = 10


class GroupMissing(Exception):
    """Redis has no such group: before the first start, and after Redis has lost everything."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A delivered entry of the stream.

    Attributes:
        id: as Redis writes it.
        text: the event, as JSON.
        attempts: how often it was delivered, including this time.
    """

    id: str
    text: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The stream and the group at one moment.

    Attributes:
        first: the first entry of the stream; None if it is empty.
        after: the entry before the first one, named by that; None if it names none.
        last: the last id that the stream has generated.
        was_trimmed: whether entries were ever removed.
        delivered: the last entry that was delivered to the group.
        read: the last entry that was delivered to the group through this class; None if there is none.
        confirmed: the position that was last saved with the effects, as Redis remembers it.
        pending: how many entries were delivered and not acknowledged.
        is_broken: whether an entry is missing before one that was delivered.
        watermark: the stream has every change that was committed before this time; None if no relay has set it.
        watermark_entry: the last entry at that time.
    """

    first: EntryId | None
    after: EntryId | None
    last: EntryId
    was_trimmed: bool
    delivered: EntryId
    read: EntryId | None
    confirmed: EntryId
    pending: int
    is_broken: bool
    watermark: datetime | None
    watermark_entry: EntryId

    def lacks(self, position: EntryId) -> bool:
        """Return whether entries behind the position were removed from the stream."""
        if self.first is None:
            return position < self.last
        if position >= self.first:
            return False
        return self.was_trimmed if self.after is None else position < self.after


class ConsumerGroup:
    """One group of one stream. Needs Redis 7.

    All processes use one consumer name, so that each can claim every pending entry by its age.

    Args:
        broker: Redis, with decoded responses.
        group: the service whose processes share the entries.
    """

    def __init__(self, broker: Redis, *, stream: str, group: str) -> None:
        self.stream: Final = stream
        self.group: Final = group
        self._state: Final = key_beside(stream, f"group:{group}", broker)
        self._broker: Final = broker
        self._pending_after = "-"

    async def create_if_missing(self, position: EntryId = START) -> None:
        """Create the group unless it exists. It begins with the first entry behind the position."""
        await self._run(PLACE, self.group, str(position), "")

    async def go_to(self, position: EntryId) -> None:
        """Move the group, forward or back: the next read begins behind this position."""
        await self._run(PLACE, self.group, str(position), "moves")

    async def confirm(self, position: EntryId) -> None:
        """Let Redis remember the position that was saved with the effects."""
        await self._broker.hset(self._state, "position", str(position))

    async def look(self) -> Look:
        """Return the state of the stream and the group.

        Raises:
            GroupMissing: there is no group, or no stream.
        """
        beside = (watermark_of(self.stream, self._broker), watermark_entry_of(self.stream, self._broker))
        answer: Any = await self._broker.eval(LOOK, 4, self.stream, self._state, *beside)
        if answer is None:
            raise GroupMissing
        kept, watermark, entry, entries, about, groups = answer
        state, stream = _pairs(kept), _pairs(about)
        mine = [group for group in map(_pairs, groups) if group["name"] == self.group]
        if not mine:
            raise GroupMissing
        first = [(name, _pairs(fields)) for name, fields in entries]
        return Look(
            first=EntryId.parse(first[0][0]) if first else None,
            after=_named_before(first[0][1]) if first else None,
            last=EntryId.parse(stream["last-generated-id"]),
            was_trimmed=stream["entries-added"] > stream["length"],
            delivered=EntryId.parse(mine[0]["last-delivered-id"]),
            read=EntryId.parse(state["read"]) if "read" in state else None,
            confirmed=EntryId.parse(state.get("position")),
            pending=int(mine[0]["pending"]),
            is_broken="broken" in state,
            watermark=datetime.fromisoformat(watermark) if watermark else None,
            watermark_entry=EntryId.parse(entry),
        )

    async def read(self, *, count: int, position: EntryId = START) -> list[Entry]:
        """Return the next entries, at most `count`. A gap before `position` is ignored: its events took effect."""
        answer = await self._run(READ, self.group, str(count), str(position))
        return [_entry((name, _pairs(fields)), attempts=1) for name, fields in answer]

    async def wait(self, after: EntryId, *, wait_s: float) -> None:
        """Return when the stream has an entry behind this one, or after the time."""
        await self._broker.xread({self.stream: str(after)}, count=1, block=round(1000 * wait_s))

    async def claim_stale(self, *, pause_s: Callable[[int], float]) -> list[Entry]:
        """Claim and return pending entries whose backoff is over.

        At most a page of them: the next call continues behind it, so that no entry keeps others waiting.

        Args:
            pause_s: returns the backoff, given the number of attempts.
        """
        shortest_ms = round(1000 * pause_s(1))
        attempts: dict[str, int] = {}
        for _ in range(_PAGES):
            pending: Any = await self._broker.xpending_range(
                self.stream, self.group, min=self._pending_after, max="+", count=_PAGE, idle=shortest_ms
            )
            attempts |= {
                each["message_id"]: each["times_delivered"] + 1
                for each in pending
                if each["time_since_delivered"] >= 1000 * pause_s(each["times_delivered"])
            }
            self._pending_after = f"({pending[-1]['message_id']}" if len(pending) == _PAGE else "-"
            if self._pending_after == "-" or len(attempts) >= _PAGE:
                break
        if not attempts:
            return []
        # XCLAIM skips entries that another process has claimed meanwhile: their idle time is below the minimum.
        claimed: Any = await self._broker.xclaim(self.stream, self.group, self.group, shortest_ms, list(attempts))
        return [_entry(raw, attempts=attempts[raw[0]]) for raw in claimed if raw]

    async def acknowledge(self, entries: Sequence[Entry]) -> None:
        """Remove the entries from the pending ones."""
        if entries:
            await self._broker.xack(self.stream, self.group, *(entry.id for entry in entries))

    async def ask(self, after: EntryId, *, wait_s: float) -> Page | None:
        """Return the events behind the position from the outbox; None if no relay answers within `wait_s`."""
        return await replay.ask(self._broker, stream=self.stream, group=self.group, after=after, wait_s=wait_s)

    async def send_again(self, event: str) -> bool:
        """Append an event to the stream once more; return False if the stream is empty. Other groups skip it."""
        return bool(await self._broker.eval(APPEND_AGAIN, 1, self.stream, event))

    async def _run(self, script: str, *arguments: str) -> Any:
        return await self._broker.eval(script, 2, self.stream, self._state, *arguments)


def _entry(raw: tuple[str, dict[str, str]], *, attempts: int) -> Entry:
    return Entry(id=raw[0], text=raw[1].get(FIELD, ""), attempts=attempts)


def _named_before(fields: Mapping[str, str]) -> EntryId | None:
    try:
        return EntryId.parse(fields[AFTER])
    except (KeyError, ValueError):  # of a foreign publisher
        return None


def _pairs(fields: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
