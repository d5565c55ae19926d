"""Events, written in the transaction of the change that they tell of.

An event that is in the outbox tells of a change that is committed, and every committed change has its event there;
a relay publishes them, at least once, in order per subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Identity,
    MetaData,
    Table,
    Text,
    Uuid,
    insert,
)
from sqlalchemy.dialects.postgresql import JSONB

from chassis.clock import new_id
from chassis.context import current_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

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

outbox = Table(
    "outbox",
    MetaData(),
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("id", Uuid),
    Column("type", Text),
    Column("subject", Uuid),
    Column("sequence", BigInteger),
    Column("data", JSONB),
    Column("traceparent", Text),
    Column("occurred_at", DateTime(timezone=True)),
    Column("published_at", DateTime(timezone=True)),
)


@dataclass(frozen=True, slots=True)
class Event:
    """A CloudEvent to be: something that happened to a resource.

    Attributes:
        type: `order.created`.
        subject: the resource.
        sequence: counts the resource's changes from 1, so that a reader can order them and see a gap.
        data: the event's content as JSON; nothing personal.
        occurred_at: when, aware.
    """

    type: str
    subject: UUID
    sequence: int
    data: Mapping[str, object]
    occurred_at: datetime


def add(connection: Connection, events: Sequence[Event]) -> None:
    """Write the events, in the transaction of their change."""
    call = current_call()
    connection.execute(
        insert(outbox),
        [
            {
                "id": new_id(),
                "type": event.type,
                "subject": event.subject,
                "sequence": event.sequence,
                "data": event.data,
                "traceparent": call.traceparent if call else "",
                "occurred_at": event.occurred_at,
            }
            for event in events
        ],
    )
