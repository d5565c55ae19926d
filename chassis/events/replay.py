"""Replays events from the outbox to a reader whose stream has lost them: page by page, over Redis.

If entries behind its position are missing, the reader requests a page of the events behind the position, applies it,
moves its position to the end of the page, and requests the next one. The relay answers with one indexed read of the
outbox and keeps no state, so relay and reader can be killed at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from sqlalchemy import text

from chassis.events.redis_streams import EntryId, key_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from sqlalchemy import Connection, Row

# The order of published events: by their entries. Events that were published before the outbox kept entries come first,
# by position. A statement each, in Alembic's autocommit_block(), after outbox.DDL_V3. A migration that failed may have
# left an invalid index, so that is dropped first.
INDEX_V1: Final = (
    "DROP INDEX CONCURRENTLY IF EXISTS outbox_entry_idx",
    """
    CREATE INDEX CONCURRENTLY outbox_entry_idx
    ON outbox ((coalesce(entry_ms, 0)), (coalesce(entry_number, position)))
    WHERE published_at IS NOT NULL
    """,
)

# Some half MiB in Redis, and 50 ms of the reader.
_PAGE: Final = 1000
# How long an answer waits for its reader; after that the reader asks again.
_KEPT_S: Final = 30
_ANSWER: Final = f"""
redis.call('DEL', KEYS[2])
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('EXPIRE', KEYS[2], {_KEPT_S})
redis.call('HDEL', KEYS[1], ARGV[1])
"""

_page = text("""
    SELECT
        position, id, type, subject, sequence, data, traceparent, occurred_at, epoch,
        coalesce(entry_ms, 0) AS entry_ms,
        coalesce(entry_number, position) AS entry_number
    FROM outbox
    WHERE
        published_at IS NOT NULL
        AND (coalesce(entry_ms, 0), coalesce(entry_number, position)) > (:ms, :number)
    ORDER BY coalesce(entry_ms, 0), coalesce(entry_number, position)
    LIMIT :size
""")
_is_complete = text("""
    SELECT coalesce((SELECT (swept_ms, swept_number) <= (:ms, :number) FROM relay_state WHERE stream = :stream), true)
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events behind a position, in the order of their entries.

    Attributes:
        after: the position.
        last: the reader's position after the page.
        is_last: whether the reader has caught up, and continues with the stream behind `last`.
        is_complete: whether the outbox still had every event behind `after`.
        events: entry id and JSON of each event.
    """

    after: EntryId
    last: EntryId
    is_last: bool
    is_complete: bool
    events: Sequence[tuple[str, str]]


class Pages:
    """The relay's side: answers the requests of readers.

    Args:
        broker: Redis, with decoded responses.
        stream: that the events belong to.
        to_json: makes the event of a row.
    """

    def __init__(self, broker: Redis, stream: str, *, to_json: Callable[[Row[Any]], bytes]) -> None:
        self._broker: Final = broker
        self._stream: Final = stream
        self._to_json: Final = to_json

    def serve(self, connection: Connection, *, last: EntryId) -> int:
        """Answer each request with its page; return how many there were.

        Args:
            connection: of a transaction in which every event has its entry.
            last: the last of these entries.
        """
        requests = _requests_of(self._stream, self._broker)
        positions: Any = self._broker.hgetall(requests)
        for group, after in positions.items():
            page = self._read(connection, EntryId.parse(after), last=last)
            self._broker.eval(_ANSWER, 2, requests, _answer_of(self._stream, group, self._broker), group, page)
        return len(positions)

    def _read(self, connection: Connection, after: EntryId, *, last: EntryId) -> bytes:
        position = {"ms": after.ms, "number": after.number}
        rows = connection.execute(_page, {**position, "size": _PAGE}).all()
        is_last = len(rows) < _PAGE
        reached = max(after, last) if is_last else EntryId(rows[-1].entry_ms, rows[-1].entry_number)
        page = {
            "after": str(after),
            "last": str(reached),
            "is_last": is_last,
            "is_complete": connection.scalar(_is_complete, {**position, "stream": self._stream}),
            "events": [(f"{row.entry_ms}-{row.entry_number}", self._to_json(row).decode()) for row in rows],
        }
        return orjson.dumps(page)


async def ask(broker: AsyncRedis, *, stream: str, group: str, after: EntryId, wait_s: float) -> Page | None:
    """Request the events behind the position; return None if no relay answers within `wait_s`."""
    await broker.hset(_requests_of(stream, broker), group, str(after))
    answer: Any = await broker.blpop([_answer_of(stream, group, broker)], timeout=wait_s)
    if answer is None:
        return None
    page = orjson.loads(answer[1])
    if page["after"] != str(after):  # the answer to an earlier request
        return None
    return Page(
        after=after,
        last=EntryId.parse(page["last"]),
        is_last=page["is_last"],
        is_complete=page["is_complete"],
        events=page["events"],
    )


def _requests_of(stream: str, broker: object) -> str:
    """Return the key of the requests: a hash from group to position."""
    return key_beside(stream, "replay", broker)


def _answer_of(stream: str, group: str, broker: object) -> str:
    return key_beside(stream, f"replay:{group}", broker)
