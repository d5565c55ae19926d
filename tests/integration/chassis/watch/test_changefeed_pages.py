"""Pages of the changefeed: their events by owner, the position after them, and whether there is more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import pytest

from chassis.events import outbox
from chassis.watch.changefeed import Changefeed
from chassis.watch.feed import START
from tests.integration.databases import transaction
from tests.integration.event_flow import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chassis.watch.feed import Page, Position
    from tests.integration.databases import TestDatabase

T = TypeVar("T")


def write(database: TestDatabase, *owners: str) -> list[UUID]:
    """Commit an event for each owner, each in a transaction of its own; return their subjects."""
    subjects = []
    for owner in owners:
        subject = UUID(int=len(database.query("SELECT 1 FROM outbox")) + 1)
        with transaction(database) as connection:
            outbox.add(connection, [outbox.Event("note.created", subject, 1, {"authorId": owner}, datetime.now(UTC))])
        subjects.append(subject)
    return subjects


def read(database: TestDatabase, *, after: Position = START, owner: str | None = None, size: int = 10) -> Page:
    return of_feed(database, lambda feed: feed.read(after, owner=owner, size=size))


def of_feed(database: TestDatabase, ask: Callable[[Changefeed], Awaitable[T]]) -> T:
    async def answer() -> T:
        async with opened(database.url) as connections:
            return await ask(Changefeed(connections, owner_field="authorId"))

    return asyncio.run(answer())


def subjects(page: Page) -> list[UUID]:
    return [event.subject for event in page.events]


def test_an_empty_feed_leaves_the_position_and_has_no_more(notes_database: TestDatabase) -> None:
    page = read(notes_database)

    assert (list(page.events), page.last, page.is_last) == ([], START, True)


@pytest.mark.parametrize(("size", "is_last"), [(2, False), (3, False), (4, True)])
def test_a_full_page_may_be_followed_by_more(notes_database: TestDatabase, size: int, *, is_last: bool) -> None:
    written = write(notes_database, "ada", "ada", "ada")

    page = read(notes_database, size=size)

    assert subjects(page) == written[:size]
    assert page.last == page.events[-1].position
    assert page.is_last is is_last


@pytest.mark.parametrize("others", [("a", "z"), ("z", "a")])
def test_a_page_has_the_owners_events_and_its_position_is_past_every_scanned_row(
    notes_database: TestDatabase, others: tuple[str, str]
) -> None:
    first, last = others
    written = write(notes_database, first, "m", first, last, "m", last)

    page = read(notes_database, owner="m", size=6)

    assert subjects(page) == [written[1], written[4]]
    assert {event.owner for event in page.events} == {"m"}
    assert subjects(read(notes_database, after=page.last)) == []
    assert not page.is_last


def test_a_page_without_events_of_the_owner_advances_the_position(notes_database: TestDatabase) -> None:
    written = write(notes_database, "a", "z", "a")

    page = read(notes_database, owner="m", size=2)

    assert (list(page.events), page.is_last) == ([], False)
    assert subjects(read(notes_database, after=page.last)) == written[2:]


def test_an_event_is_read_as_it_was_written(notes_database: TestDatabase) -> None:
    [written] = write(notes_database, "ada")

    [event] = read(notes_database).events

    assert (event.type, event.subject, event.sequence, event.data) == ("note.created", written, 1, {"authorId": "ada"})
    assert event.position.number == 1
    [(event_id,)] = notes_database.query("SELECT id FROM outbox")
    assert event.position.id == event_id


def test_a_page_can_begin_at_a_position_within_a_transaction(notes_database: TestDatabase) -> None:
    with transaction(notes_database) as connection:
        events = [outbox.Event("note.created", UUID(int=n), 1, {}, datetime.now(UTC)) for n in range(1, 4)]
        outbox.add(connection, events)
    first, second, third = read(notes_database).events

    assert subjects(read(notes_database, after=first.position)) == [second.subject, third.subject]
    assert subjects(read(notes_database, after=third.position)) == []


def test_an_event_has_its_own_position(notes_database: TestDatabase) -> None:
    write(notes_database, "a", "b", "c")
    events = read(notes_database).events

    ids = [event.position.id for event in events]
    found = [of_feed(notes_database, lambda feed, each=each: feed.position_of(each)) for each in ids]

    assert found == [event.position for event in events]
