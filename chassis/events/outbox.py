"""Events, written in the transaction of the change that they tell of.

An event that is in the outbox tells of a change that is committed, and every committed change has its event there;
a relay publishes them, at least once, in order per subject.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chassis.clock import new_id
from chassis.context import current_call
from chassis.database.database import as_json, execute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# The first version of the table, for a service's migration. A later change is another constant, never an edit.
DDL_V1: Final = """
CREATE TABLE outbox (
    position bigint GENERATED ALWAYS AS IDENTITY,
    id uuid NOT NULL,
    type text NOT NULL,
    subject uuid NOT NULL,
    sequence bigint NOT NULL,
    data jsonb NOT NULL,
    traceparent text NOT NULL,
    occurred_at timestamptz NOT NULL,
    published_at timestamptz,
    CONSTRAINT outbox_pkey PRIMARY KEY (position),
    CONSTRAINT outbox_id_key UNIQUE (id),
    CONSTRAINT outbox_subject_sequence_key UNIQUE (subject, sequence)
);
CREATE INDEX outbox_unpublished_idx ON outbox (subject, sequence) WHERE published_at IS NULL;
"""

# Where each event stands among all of them for whoever reads them here, in `feed.py`: after everything that was
# committed before its transaction began. None of those that are older than the column, which was added at once and
# without a rewrite. Rows that name no number get their transaction's, as those of a replica that is being replaced.
DDL_V2: Final = (
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS transaction xid8",
    "ALTER TABLE outbox ALTER COLUMN transaction SET DEFAULT pg_current_xact_id()",
)
# Under which entry of the stream each event was published last, so that what Redis or a reader lacks is found by an
# index; and in which epoch of the database it was published first (see relay.py). Columns without defaults.
DDL_V3: Final = (
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS entry_ms bigint",
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS entry_number bigint",
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS epoch integer",
)

# The columns that Event.row() fills.
COLUMNS: Final = """
    event_id uuid, event_type text, event_subject uuid, event_sequence bigint, event_data jsonb,
    event_traceparent text, event_occurred_at timestamptz
"""


def insert_from(query: str) -> str:
    """Return the statement that writes the events of a query's rows, which have COLUMNS.

    An event is never ordered before its subject's last one: a transaction that began earlier may have waited for the
    one that wrote it.
    """
    return f"""
        INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at, transaction)
        SELECT
            event_id, event_type, event_subject, event_sequence, event_data, event_traceparent, event_occurred_at,
            greatest(
                pg_current_xact_id(),
                (
                    SELECT transaction
                    FROM outbox AS last
                    WHERE event_sequence > 1 AND last.subject = event_subject AND last.sequence = event_sequence - 1
                )
            )
        FROM {query}
    """  # noqa: S608  put together from constants


def traceparent_now() -> str:
    """Return the trace of the call that is being served, or empty."""
    call = current_call()
    return call.traceparent if call else ""


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent to be: something that happened to a resource.

    Attributes:
        type: `order.created`.
        subject: the resource.
        sequence: counts the resource's changes from 1, so that a reader can order them and see a gap.
        data: the event's content as JSON; nothing personal.
        occurred_at: when, aware.
        traceparent: the trace of the call that it happened in: by default the one that is being served now. A batch
            serves many calls and none, so there it is to be given.
    """

    type: str
    subject: UUID
    sequence: int
    data: Mapping[str, object]
    occurred_at: datetime
    traceparent: str = field(default_factory=traceparent_now)

    def row(self) -> dict[str, object]:
        """Return the event as COLUMNS has it, with an id of its own."""
        return {
            "event_id": new_id(),
            "event_type": self.type,
            "event_subject": self.subject,
            "event_sequence": self.sequence,
            "event_data": self.data,
            "event_traceparent": self.traceparent,
            "event_occurred_at": self.occurred_at,
        }


_ADD: Final = f"""
    WITH new_events AS (SELECT * FROM json_to_recordset(CAST(%s AS json)) AS new_events ({COLUMNS}))
    {insert_from("new_events")}
"""  # noqa: S608  put together from constants


def add(connection: Connection, events: Sequence[Event]) -> None:
    """Write the events, in the transaction of their change."""
    execute(connection, _ADD, as_json([event.row() for event in events]))
