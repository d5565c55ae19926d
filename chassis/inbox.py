"""What of each subject has taken effect, written in the transaction of the effect: so an event takes effect once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

# The first version of the tables, for a service's migration. A later change is another constant, never an edit.
DDL_V1: Final = """
CREATE TABLE inbox (
    stream text NOT NULL,
    subject uuid NOT NULL,
    sequence bigint NOT NULL,
    CONSTRAINT inbox_pkey PRIMARY KEY (stream, subject)
);
CREATE TABLE inbox_state (
    stream text NOT NULL,
    as_of timestamptz NOT NULL,
    CONSTRAINT inbox_state_pkey PRIMARY KEY (stream)
);
"""

# A row that is there is locked, one that is not is made: two consumers of one subject wait for each other either way.
# By subject, so that two that lock the same subjects cannot lock each other.
_claim = text("""
    INSERT INTO inbox (stream, subject, sequence)
    SELECT :stream, subject, 0
    FROM unnest(CAST(:subjects AS uuid[])) AS subject
    ORDER BY subject
    ON CONFLICT ON CONSTRAINT inbox_pkey DO UPDATE SET sequence = inbox.sequence
    RETURNING subject, sequence
""")
_advance = text("""
    UPDATE inbox
    SET sequence = done.sequence
    FROM unnest(CAST(:subjects AS uuid[]), CAST(:sequences AS bigint[])) AS done (subject, sequence)
    WHERE inbox.stream = :stream AND inbox.subject = done.subject
""")
_as_of = text("SELECT as_of FROM inbox_state WHERE stream = :stream")
_set_as_of = text("""
    INSERT INTO inbox_state (stream, as_of)
    VALUES (:stream, :as_of)
    ON CONFLICT ON CONSTRAINT inbox_state_pkey DO UPDATE SET as_of = greatest(inbox_state.as_of, excluded.as_of)
""")


def claim(connection: Connection, stream: str, subjects: Iterable[UUID]) -> dict[UUID, int]:
    """Return the last sequence of each subject that took effect, 0 for none, and keep others from them."""
    rows = connection.execute(_claim, {"stream": stream, "subjects": sorted(set(subjects))})
    return {row.subject: row.sequence for row in rows}


def advance(connection: Connection, stream: str, last: Mapping[UUID, int]) -> None:
    """Write the last sequence of subjects that this transaction has claimed."""
    connection.execute(_advance, {"stream": stream, "subjects": list(last.keys()), "sequences": list(last.values())})


def as_of(connection: Connection, stream: str) -> datetime | None:
    """Return the time up to which every event of the stream has taken effect; None if nobody knows."""
    found: datetime | None = connection.scalar(_as_of, {"stream": stream})
    return found


def set_as_of(connection: Connection, stream: str, moment: datetime) -> None:
    """Write that time; it only moves forward."""
    connection.execute(_set_as_of, {"stream": stream, "as_of": moment})
