"""Which events took effect: the number of each subject's last event, the position in each stream, dead letters.

The number is written in the transaction of the effect, so an event that is delivered twice takes effect once. All of it
is in the database of the effects: if that is restored to an earlier time, so is the position, and the consumer gets the
events behind it again. A subject that is a text is kept as the UUID that stands for it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from chassis.keys import uuid_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection

    from chassis.database.statement_pool import Fetch
    from chassis.events.redis_streams import EntryId
    from chassis.keys import Key

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
# Columns without a default or with a constant one, and a new table: locks the others for an instant.
DDL_V2: Final = (
    "ALTER TABLE inbox ADD COLUMN IF NOT EXISTS epoch integer NOT NULL DEFAULT 0",
    "ALTER TABLE inbox_state ADD COLUMN IF NOT EXISTS position text",
    "ALTER TABLE inbox_state ADD COLUMN IF NOT EXISTS incomplete_since timestamptz",
    "ALTER TABLE inbox_state ALTER COLUMN as_of DROP NOT NULL",
    """
    CREATE TABLE IF NOT EXISTS dead_letters (
        stream text NOT NULL,
        key uuid NOT NULL,
        subject uuid,
        sequence bigint NOT NULL,
        event text NOT NULL,
        reason text NOT NULL,
        attempts integer NOT NULL,
        died_at timestamptz NOT NULL,
        CONSTRAINT dead_letters_pkey PRIMARY KEY (stream, key)
    )
    """,
    "CREATE INDEX IF NOT EXISTS dead_letters_subject_idx ON dead_letters (stream, subject)",
)

# More are not counted: however many there are, an operator has to look.
_MANY: Final = 1000

# Locks the row of each subject, and inserts rows that are missing, so that two consumers of one subject wait for each
# other. Ordered by subject, so that two transactions with the same subjects cannot deadlock.
_claim = text("""
    INSERT INTO inbox (stream, subject, sequence)
    SELECT :stream, subject, 0
    FROM unnest(CAST(:subjects AS uuid[])) AS subject
    ORDER BY subject
    ON CONFLICT ON CONSTRAINT inbox_pkey DO UPDATE SET sequence = inbox.sequence
    RETURNING subject, epoch, sequence
""")
_advance = text("""
    UPDATE inbox
    SET epoch = done.epoch, sequence = done.sequence
    FROM unnest(CAST(:subjects AS uuid[]), CAST(:epochs AS integer[]), CAST(:sequences AS bigint[]))
        AS done (subject, epoch, sequence)
    WHERE inbox.stream = :stream AND inbox.subject = done.subject
""")
_as_of = text("SELECT as_of FROM inbox_state WHERE stream = :stream")
_STATE: Final = f"""
    SELECT
        (SELECT position FROM inbox_state WHERE stream = given.stream) AS position,
        (SELECT as_of FROM inbox_state WHERE stream = given.stream) AS as_of,
        (SELECT incomplete_since FROM inbox_state WHERE stream = given.stream) IS NOT NULL AS is_incomplete,
        (
            SELECT count(*)
            FROM (SELECT FROM dead_letters WHERE dead_letters.stream = given.stream LIMIT {_MANY}) AS counted
        ) AS dead_letters
    FROM (SELECT CAST(%s AS text) AS stream) AS given
"""  # noqa: S608  put together from constants
# Only if the position is still the one that the caller has read: another consumer may have moved it since, or the
# database may have been restored. The time comes from the publisher: if its clock was ahead, the time goes back once
# that clock is right.
_save_position = text("""
    INSERT INTO inbox_state (stream, position, as_of)
    VALUES (:stream, :position, CAST(:as_of AS timestamptz))
    ON CONFLICT ON CONSTRAINT inbox_state_pkey DO UPDATE
    SET position = excluded.position, as_of = coalesce(excluded.as_of, inbox_state.as_of)
    WHERE inbox_state.position IS NOT DISTINCT FROM :known
""")
_is_incomplete = text("""
    INSERT INTO inbox_state (stream, incomplete_since)
    VALUES (:stream, now())
    ON CONFLICT ON CONSTRAINT inbox_state_pkey DO UPDATE
    SET incomplete_since = coalesce(inbox_state.incomplete_since, excluded.incomplete_since)
""")
_insert_dead_letters = text("""
    INSERT INTO dead_letters (stream, key, subject, sequence, event, reason, attempts, died_at)
    VALUES (:stream, :key, :subject, :sequence, :event, :reason, :attempts, now())
    ON CONFLICT ON CONSTRAINT dead_letters_pkey DO UPDATE
    SET reason = excluded.reason, attempts = excluded.attempts, died_at = excluded.died_at
""")
# An event of a later number has taken effect, so the dead letters up to it have too.
_revive = text("""
    DELETE FROM dead_letters
    USING unnest(CAST(:subjects AS uuid[]), CAST(:sequences AS bigint[])) AS done (subject, sequence)
    WHERE
        dead_letters.stream = :stream
        AND dead_letters.subject = done.subject
        AND dead_letters.sequence <= done.sequence
""")
# In the order of DeadLetter's attributes, and when it was given up.
_letters = text("""
    SELECT key, subject, sequence, event, reason, attempts, died_at
    FROM dead_letters
    WHERE stream = :stream
    ORDER BY died_at, sequence, key
""")


class Number(NamedTuple):
    """The number of an event among its subject's: ordered by epoch, then by sequence."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a stream has taken effect.

    Attributes:
        position: every entry up to it took effect or is a dead letter; None if nothing is known.
        as_of: every change committed before this time took effect; None if nothing is known.
        is_incomplete: whether events were lost that neither the stream nor the outbox has any more.
        dead_letters: their number, at most 1,000.
    """

    position: str | None
    as_of: datetime | None
    is_incomplete: bool
    dead_letters: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not take effect.

    Attributes:
        key: the event's id; if the entry holds no event, a UUID made of its text.
        subject: the event's, or the UUID that stands for it; None if the entry holds no event.
        sequence: the event's, or 0.
        event: the text of the entry.
        reason: the class of the error, or GAP if the event before it never came.
        attempts: how often it was tried.
    """

    key: UUID
    subject: Key | None
    sequence: int
    event: str
    reason: str
    attempts: int


def claim(connection: Connection, stream: str, subjects: Iterable[Key]) -> dict[Key, Number]:
    """Lock the subjects until the end of the transaction; return the number of each one's last event, 0 for none."""
    by_uuid = {uuid_of(subject): subject for subject in subjects}
    rows = connection.execute(_claim, {"stream": stream, "subjects": list(by_uuid)})
    return {by_uuid[row.subject]: Number(row.epoch, row.sequence) for row in rows}


def advance(connection: Connection, stream: str, last: Mapping[Key, Number]) -> None:
    """Write the last numbers of subjects that this transaction has claimed."""
    values = {
        "subjects": [uuid_of(subject) for subject in last],
        "epochs": [each.epoch for each in last.values()],
        "sequences": [each.sequence for each in last.values()],
    }
    connection.execute(_advance, {"stream": stream, **values})


async def state(fetch: Fetch, stream: str) -> State:
    """Return how far the stream has taken effect."""
    [(position, as_of, is_incomplete, dead_letters)] = await fetch(_STATE, stream)
    return State(position=position, as_of=as_of, is_incomplete=is_incomplete, dead_letters=dead_letters)


def as_of(connection: Connection, stream: str) -> datetime | None:
    """Return the time before which every change of the stream took effect; None if it is not known."""
    found: datetime | None = connection.scalar(_as_of, {"stream": stream})
    return found


def save_position(
    connection: Connection, stream: str, *, known: str | None, position: EntryId, as_of: datetime | None = None
) -> bool:
    """Write the position, and the time unless it is None.

    Returns:
        False if `known`, the position that the caller has read, is outdated; then nothing is written.
    """
    values = {"stream": stream, "known": known, "position": str(position), "as_of": as_of}
    return connection.execute(_save_position, values).rowcount > 0


def set_incomplete(connection: Connection, stream: str) -> None:
    """Write that events were lost which neither the stream nor the outbox has any more."""
    connection.execute(_is_incomplete, {"stream": stream})


def dead_letter(connection: Connection, stream: str, letters: Sequence[DeadLetter]) -> None:
    """Keep events as dead letters."""
    rows = [
        {
            **dataclasses.asdict(letter),
            "stream": stream,
            "subject": None if letter.subject is None else uuid_of(letter.subject),
        }
        for letter in letters
    ]
    connection.execute(_insert_dead_letters, rows)


def revive(connection: Connection, stream: str, last: Mapping[Key, Number]) -> None:
    """Remove the dead letters of these subjects up to these numbers, because their events took effect."""
    values = {
        "subjects": [uuid_of(subject) for subject in last],
        "sequences": [each.sequence for each in last.values()],
    }
    connection.execute(_revive, {"stream": stream, **values})


def dead_letters(connection: Connection, stream: str) -> list[tuple[DeadLetter, datetime]]:
    """Return the dead letters and when each was given up, oldest first."""
    rows = connection.execute(_letters, {"stream": stream})
    return [(DeadLetter(*letter), died_at) for *letter, died_at in rows]
