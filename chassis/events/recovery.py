"""Recovery of a relay whose stream and database do not agree, because Redis or the database went back in time.

- Redis lost entries: the events behind the last surviving entry are sent again (`after_loss`).
- The stream has entries that the database does not know of: they are matched with the outbox (`match_entries`). Either
  a relay was killed between sending and marking, or the database was restored to an earlier time, which begins a new
  epoch.
- An operator has events published once more (`publish_again`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import text

from chassis.events import relay_state
from chassis.events.cloudevents import CloudEvent, Malformed
from chassis.telemetry.metrics.events import events_vanished

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.database import Database
    from chassis.events.redis_streams import EntryId
    from chassis.events.relay_state import StreamState
    from chassis.events.stream import Stream

log = structlog.get_logger(__name__)

# Rows that one statement of publish_again looks at.
_PAGE: Final = 1000

_unmark = text("""
    WITH page AS (
        SELECT position, occurred_at, published_at
        FROM outbox
        WHERE position > :after
        ORDER BY position
        LIMIT :size
    ),
    again AS (
        UPDATE outbox
        SET published_at = NULL
        FROM page
        WHERE outbox.position = page.position AND page.occurred_at >= :since AND page.published_at IS NOT NULL
        RETURNING outbox.position
    )
    SELECT (SELECT max(position) FROM page) AS last, (SELECT count(*) FROM again) AS count
""")


def after_loss(connection: Connection, stream: Stream, state: StreamState, *, survivor: EntryId) -> StreamState:
    """Return the state in which the events of the entries lost after `survivor` are sent again.

    At most as many as the stream holds: older entries had been trimmed before Redis lost the rest. A reader that lacks
    their events asks for them.
    """
    lost_after = max(survivor, relay_state.newest_entry_but(connection, stream.max_length))
    if state.is_recovering:  # and lost some of what had been recovered
        lost_after = min(lost_after, state.lost_after)
    lost_until = max(state.position, state.lost_until)
    log.warning("relay.stream_lost", stream=stream.name, survivor=str(survivor), after=str(lost_after))
    return dataclasses.replace(state, position=survivor, lost_after=lost_after, lost_until=lost_until)


def match_entries(
    connection: Connection, stream: Stream, state: StreamState, *, last: EntryId, size: int
) -> StreamState:
    """Mark the events of the next `size` entries that the database does not know as published.

    Returns:
        The state that knows these entries; `last` is the last entry of the stream.
    """
    found = stream.read_after(state.position, count=size)
    events: dict[EntryId, CloudEvent] = {}
    for entry, sent in found:
        try:
            events[entry] = CloudEvent.from_json(sent)
        except Malformed:
            continue
    positions = relay_state.positions_of(connection, [event.id for event in events.values()])
    known = {positions[event.id]: entry for entry, event in events.items() if event.id in positions}
    # A dead letter that was requeued keeps its first entry: behind the later events of its subject, a reader that gets
    # them from the outbox would take those for early.
    relay_state.mark_published(connection, known, epoch=state.epoch, again=state.is_recovering)
    # An event that is older than the whole outbox was removed from it by the sweep.
    oldest = relay_state.oldest_change_at(connection)
    vanished = [e for e in events.values() if e.id not in positions and (oldest is None or e.time > oldest)]
    state = dataclasses.replace(state, position=found[-1][0] if found else last)
    if not vanished:
        return state
    # The restored database gives out the sequences of the vanished events once more. In a new epoch readers do not take
    # them for events that they have had already.
    events_vanished(stream.name, count=len(vanished))
    log.error("relay.database_restored", stream=stream.name, vanished=len(vanished), epoch=state.epoch + 1)
    return dataclasses.replace(state, epoch=state.epoch + 1)


async def publish_again(database: Database, *, since: datetime) -> int:
    """Mark the events since this time as unpublished, so that the relay publishes them again; return how many.

    A transaction covers 1,000 rows: if the command is interrupted, run it again.
    """
    count, last = 0, 0

    def unmark_page(connection: Connection) -> tuple[int | None, int]:
        row = connection.execute(_unmark, {"after": last, "since": since, "size": _PAGE}).one()
        return row[0], row[1]

    while True:
        reached, unmarked = await database.transaction(unmark_page)
        count += unmarked
        if reached is None:
            return count
        last = reached
