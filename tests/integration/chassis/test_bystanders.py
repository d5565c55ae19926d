"""A statement about one row of the chassis leaves every other row as it was, whichever of them is older.

Ids sort by time, so each test has a neighbour on both sides: a condition that is too wide reaches one of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from chassis.events import inbox, outbox
from chassis.events.inbox import Number
from chassis.events.redis_streams import START
from chassis.idempotency import store
from chassis.idempotency.key import IdempotencyKey
from chassis.idempotency.store import ResponseCodec
from tests.integration.databases import rows, transaction
from tests.support.builders import AFTER, ALL, BEFORE, OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def connection(notes_database: TestDatabase) -> Iterator[Connection]:
    with transaction(notes_database) as opened:
        yield opened


# Stored responses


CODEC: ResponseCodec[UUID] = ResponseCodec(
    dump=lambda _: b'"x"', load=lambda _: OURS, resource_id=lambda resource: resource
)


def key(number: int, *, now: datetime = NOW) -> IdempotencyKey:
    return IdempotencyKey("ada", "/method", UUID(int=number), b"content", now)


def keep(connection: Connection, resources: Sequence[UUID]) -> None:
    """Store a response about each of the resources."""
    store.claim(connection, [key(resource.int) for resource in resources])
    store.complete(connection, [(key(resource.int), resource) for resource in resources], codec=CODEC)


def kept(connection: Connection) -> list[UUID]:
    query = "SELECT resource_id FROM idempotency_keys WHERE response IS NOT NULL ORDER BY 1"
    return [found for (found,) in rows(connection, query)]


def test_erasing_the_stored_responses_about_one_resource_leaves_the_others(connection: Connection) -> None:
    keep(connection, ALL)

    store.erase_responses(connection, [OURS])

    assert kept(connection) == [BEFORE, AFTER]
    # The fingerprint is a digest of what was erased, and can be guessed from it.
    query = "SELECT resource_id, fingerprint = '' FROM idempotency_keys ORDER BY 1"
    assert rows(connection, query) == [(BEFORE, False), (OURS, True), (AFTER, False)]


def test_a_response_is_stored_with_its_own_key_only(connection: Connection) -> None:
    store.claim(connection, [key(1), key(2), key(3)])

    store.complete(connection, [(key(2), OURS)], codec=CODEC)

    assert rows(connection, "SELECT resource_id, response FROM idempotency_keys ORDER BY request_id") == [
        (None, None),
        (OURS, b'"x"'),
        (None, None),
    ]


def test_a_key_that_is_released_is_free_and_the_others_are_not(connection: Connection) -> None:
    store.claim(connection, [key(1), key(2), key(3)])

    store.release(connection, [key(2)])

    assert store.claim(connection, [key(1), key(2), key(3)]) == {("ada", "/method", OURS)}


def test_an_expired_key_that_is_claimed_again_holds_no_earlier_response(connection: Connection) -> None:
    keep(connection, [OURS])
    later = NOW + timedelta(hours=24, seconds=1)
    again = IdempotencyKey("ada", "/method", OURS, b"other content", later)

    assert store.claim(connection, [again]) == {("ada", "/method", OURS)}

    query = "SELECT fingerprint, resource_id, response, created_at FROM idempotency_keys"
    assert rows(connection, query) == [(b"other content", None, None, later)]


# The inbox


def test_sequences_are_kept_per_stream_and_subject(connection: Connection) -> None:
    for stream in ("a", "b", "c"):
        inbox.claim(connection, stream, ALL)

    inbox.advance(connection, "b", {OURS: Number(0, 5)})

    none = Number(0, 0)
    assert inbox.claim(connection, "a", ALL) == dict.fromkeys(ALL, none)
    assert inbox.claim(connection, "b", ALL) == {BEFORE: none, OURS: Number(0, 5), AFTER: none}
    assert inbox.claim(connection, "c", ALL) == dict.fromkeys(ALL, none)


def test_the_watermark_of_a_stream_is_its_own_and_follows_the_publishers_clock(connection: Connection) -> None:
    def note(stream: str, as_of: datetime | None, *, known: str | None = "0-0") -> None:
        assert inbox.save_position(connection, stream, known=known, position=START, as_of=as_of)

    for n, stream in enumerate(("a", "b", "c")):
        note(stream, NOW + timedelta(hours=n), known=None)

    note("c", NOW + timedelta(hours=9))
    note("b", NOW)  # an hour ago: the clock was ahead
    note("a", None)

    assert {stream: inbox.as_of(connection, stream) for stream in ("0", "a", "aa", "b", "c", "d")} == {
        "0": None,
        "a": NOW,
        "aa": None,
        "b": NOW,
        "c": NOW + timedelta(hours=9),
        "d": None,
    }


# The outbox


def write(connection: Connection, subject: UUID, sequence: int) -> None:
    outbox.add(connection, [outbox.Event("note.created", subject, sequence, {}, NOW, traceparent="")])


def test_an_event_follows_the_last_one_of_its_own_subject(connection: Connection) -> None:
    for number, subject in enumerate(ALL, start=1):
        write(connection, subject, 1)
        connection.exec_driver_sql(
            "UPDATE outbox SET transaction = (transaction::text::bigint + %s)::text::xid8 WHERE subject = %s",
            (1_000_000 * number, subject),
        )

    write(connection, OURS, 2)

    query = "SELECT transaction = (SELECT max(transaction) FROM outbox WHERE subject = %s AND sequence = 1) FROM outbox"
    assert connection.exec_driver_sql(f"{query} WHERE subject = %s AND sequence = 2", (OURS, OURS)).all() == [(True,)]
