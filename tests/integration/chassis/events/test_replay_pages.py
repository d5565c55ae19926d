"""The pages that a relay answers readers with: what is in them, and what is left of them in Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chassis.events import replay
from chassis.events.redis_streams import EntryId, stream_of
from chassis.events.replay import Pages
from tests.integration.chassis.events.test_relay import write
from tests.integration.databases import rows, transaction

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Row

    from tests.integration.databases import TestDatabase

STREAM = stream_of("note")
WANTED, ANSWER = f"{STREAM}:replay", f"{STREAM}:replay:test"


def name_of(row: Row[Any]) -> bytes:
    return f"event {row.position}".encode()


def serve(database: TestDatabase, stored: Redis, *, after: str, last: EntryId) -> None:
    """Let the relay answer a reader that stands there."""
    stored.hset(WANTED, "test", after)
    with transaction(database) as connection:
        assert Pages(stored, STREAM, to_json=name_of).serve(connection, last=last) == 1


def answer(stored: Redis) -> dict[str, Any]:
    [page] = stored.lrange(ANSWER, 0, -1)
    found: dict[str, Any] = json.loads(page)
    return found


@pytest.mark.parametrize(("after", "expected"), [("0-0", [1, 2, 3]), ("0-1", [2, 3]), ("0-2", [3]), ("7-1", [])])
def test_events_from_before_entries_were_kept_come_first_and_once(
    notes_database: TestDatabase, stored: Redis, after: str, expected: list[int]
) -> None:
    write(notes_database, 1, 2, 3)
    notes_database.query("UPDATE outbox SET published_at = now()")
    notes_database.query("UPDATE outbox SET entry_ms = 7, entry_number = 1 WHERE position = 3")

    serve(notes_database, stored, after=after, last=EntryId(7, 1))

    entries = {1: "0-1", 2: "0-2", 3: "7-1"}
    assert answer(stored)["events"] == [[entries[number], f"event {number}"] for number in expected]


def test_a_full_page_ends_with_its_last_event(
    notes_database: TestDatabase, stored: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_PAGE", 2)
    write(notes_database, 1, 2, 3)
    notes_database.query("UPDATE outbox SET published_at = now(), entry_ms = 10 * position, entry_number = position")

    serve(notes_database, stored, after="0-0", last=EntryId(30, 3))

    assert (answer(stored)["last"], answer(stored)["is_last"]) == ("20-2", False)


@pytest.mark.parametrize(("after", "is_complete"), [("9-0", False), ("10-0", True), ("11-0", True)])
def test_a_page_reports_the_swept_events_of_its_own_stream(
    notes_database: TestDatabase, stored: Redis, after: str, *, is_complete: bool
) -> None:
    insert = "INSERT INTO relay_state (stream, last_entry, swept_ms) VALUES (%s, '', %s)"
    serve(notes_database, stored, after=after, last=EntryId(20, 0))
    assert answer(stored)["is_complete"], "nothing was ever swept"
    for stream, swept_ms in (("a", 1), (STREAM, 10), ("z", 99)):
        notes_database.query(insert, stream, swept_ms)

    serve(notes_database, stored, after=after, last=EntryId(20, 0))

    assert answer(stored)["is_complete"] is is_complete


def test_a_reader_gets_the_page_it_asked_for_last_and_an_unread_page_expires(
    notes_database: TestDatabase, stored: Redis
) -> None:
    serve(notes_database, stored, after="0-0", last=EntryId(1, 0))

    serve(notes_database, stored, after="5-0", last=EntryId(9, 0))

    assert answer(stored)["after"] == "5-0"
    assert 0 < stored.ttl(ANSWER) <= 60
    assert stored.hgetall(WANTED) == {}


def test_serving_writes_nothing(notes_database: TestDatabase, stored: Redis) -> None:
    write(notes_database, 1)
    everything = "SELECT outbox.*, outbox.xmin FROM outbox"
    before = notes_database.query(everything)

    serve(notes_database, stored, after="0-0", last=EntryId(1, 0))

    assert notes_database.query(everything) == before
    with transaction(notes_database) as connection:
        assert rows(connection, "SELECT 1 FROM relay_state") == []
