"""The outbox: each change writes its event there in its own transaction, and a relay publishes it.

So a change is committed if and only if its event is in the outbox. Events are published at least once, in order per
subject.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chassis.clock import new_id
from chassis.context import current_call
from chassis.database.statements import as_json, execute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.keys import Key, KeyType

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

# The same for a service whose keys are texts.
DDL_V1_TEXT: Final = DDL_V1.replace("subject uuid", "subject text")

# The writing transaction, by which the changefeed orders events: after every event that was committed before it began.
# NULL in rows that are older than the column, which was added without a rewrite. The default is for replicas of the
# previous version, which do not name the column.
DDL_V2: Final = (
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS transaction xid8",
    "ALTER TABLE outbox ALTER COLUMN transaction SET DEFAULT pg_current_xact_id()",
)
# The entry id under which each event was last published: an index on it finds the events that Redis or a reader lacks.
# And the epoch of the database in which it was first published (see recovery.py). Columns without defaults.
DDL_V3: Final = (
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS entry_ms bigint",
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS entry_number bigint",
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS epoch integer",
)


def columns_of(key: KeyType) -> str:
    """Return the columns that Event.row() fills, of a service with this type of keys."""
    return f"""
        event_id uuid, event_type text, event_subject {key}, event_sequence bigint, event_data jsonb,
        event_traceparent text, event_occurred_at timestamptz
    """


COLUMNS: Final = columns_of("uuid")


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


def write_with_events(*, columns: str, writes: str, key: KeyType = "uuid") -> str:
    """Return the statement that writes changes of resources together with their events.

    Its one parameter is a JSON array of rows: the resource's own columns and those of Event.row().

    Args:
        columns: names and types of the resource's own columns.
        writes: common table expressions that write from the rows, which are called `changed`.
        key: the type of the resource's key.
    """
    return f"""
        WITH changed AS MATERIALIZED (
            SELECT *
            FROM json_to_recordset(CAST(%s AS json)) AS changed ({columns}, {columns_of(key)})
        ),
        {writes}
        {insert_from("changed")}
    """  # noqa: S608  put together from constants


def traceparent_now() -> str:
    """Return the traceparent of the current call; empty outside of a call."""
    call = current_call()
    return call.traceparent if call else ""


@dataclass(frozen=True, slots=True)
class Event:
    """A change of a resource, to be published as a CloudEvent.

    Attributes:
        type: `order.created`.
        subject: the key of the resource.
        sequence: the number of the change, from 1: a reader orders a resource's changes by it, and sees a gap.
        data: the event's content as JSON; nothing personal.
        occurred_at: when, aware.
        traceparent: of the call that made the change; by default the current one. A batch has no current call, so its
            events need it given.
    """

    type: str
    subject: Key
    sequence: int
    data: Mapping[str, object]
    occurred_at: datetime
    traceparent: str = field(default_factory=traceparent_now)

    def row(self) -> dict[str, object]:
        """Return the event as a row of COLUMNS, with a new id."""
        return {
            "event_id": new_id(),
            "event_type": self.type,
            "event_subject": self.subject,
            "event_sequence": self.sequence,
            "event_data": self.data,
            "event_traceparent": self.traceparent,
            "event_occurred_at": self.occurred_at,
        }


def _adding(key: KeyType) -> str:
    return f"""
        WITH new_events AS (SELECT * FROM json_to_recordset(CAST(%s AS json)) AS new_events ({columns_of(key)}))
        {insert_from("new_events")}
    """  # noqa: S608  put together from constants


_ADD: Final = _adding("uuid")
_ADD_OF_TEXTS: Final = _adding("text")


def add(connection: Connection, events: Sequence[Event]) -> None:
    """Write the events, in the transaction of their change."""
    is_text = any(isinstance(event.subject, str) for event in events)
    execute(connection, _ADD_OF_TEXTS if is_text else _ADD, as_json([event.row() for event in events]))
