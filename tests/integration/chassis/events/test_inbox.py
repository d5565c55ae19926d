"""The inbox keeps a position for each stream, and the latest state of each dead letter."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from chassis.events import inbox
from chassis.events.inbox import DeadLetter, Number, State
from chassis.events.redis_streams import START, EntryId
from tests.integration.databases import rows, transaction
from tests.integration.row_locks import waiting
from tests.support.builders import AFTER, ALL, BEFORE, NOON, OURS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chassis.database.statement_pool import Rows
    from tests.integration.databases import TestDatabase

STREAMS = ("a", "b", "c")


def a_letter(number: int, **changes: Any) -> DeadLetter:
    known = {"subject": OURS, "sequence": 1, "event": f"event {number}", "reason": "Poison", "attempts": 10}
    return DeadLetter(**{"key": UUID(int=number), **known, **changes})


async def state_of(database: TestDatabase, stream: str) -> State:
    async def run(statement: str, *parameters: object) -> Rows:
        with psycopg.connect(database.url) as session:
            return session.execute(statement.encode(), parameters).fetchall()

    return await inbox.state(run, stream)


async def test_the_state_of_a_stream_is_its_own(notes_database: TestDatabase) -> None:
    with transaction(notes_database) as connection:
        for number, stream in enumerate(STREAMS, start=1):
            reached = EntryId(number, 0)
            assert inbox.save_position(
                connection, stream, known=None, position=reached, as_of=NOON + timedelta(hours=number)
            )
        inbox.dead_letter(connection, "b", [a_letter(1), a_letter(2)])
        inbox.dead_letter(connection, "c", [a_letter(1)])
        inbox.set_incomplete(connection, "c")

    found = {stream: await state_of(notes_database, stream) for stream in ("", *STREAMS, "d")}

    nothing = State(position=None, as_of=None, is_incomplete=False, dead_letters=0)
    later = [NOON + timedelta(hours=number) for number in (1, 2, 3)]
    assert found == {
        "": nothing,
        "a": State(position="1-0", as_of=later[0], is_incomplete=False, dead_letters=0),
        "b": State(position="2-0", as_of=later[1], is_incomplete=False, dead_letters=2),
        "c": State(position="3-0", as_of=later[2], is_incomplete=True, dead_letters=1),
        "d": nothing,
    }


def test_a_consumer_with_another_position_changes_nothing(notes_database: TestDatabase) -> None:
    with transaction(notes_database) as connection:
        assert inbox.save_position(connection, "a", known=None, position=EntryId(5, 0))

        assert not inbox.save_position(connection, "a", known="4-0", position=EntryId(9, 0), as_of=NOON)
        assert not inbox.save_position(connection, "a", known=None, position=START, as_of=NOON)

        assert rows(connection, "SELECT position, as_of FROM inbox_state") == [("5-0", None)]


def test_the_number_of_a_restored_producer_s_event_is_kept_with_its_epoch(notes_database: TestDatabase) -> None:
    with transaction(notes_database) as connection:
        inbox.claim(connection, "a", [OURS])

        inbox.advance(connection, "a", {OURS: Number(2, 1)})

        assert inbox.claim(connection, "a", [OURS]) == {OURS: Number(2, 1)}


def test_subjects_are_claimed_in_one_sequence_whatever_the_sequence_of_their_events(
    notes_database: TestDatabase,
) -> None:
    def claim(*subjects: UUID) -> Any:
        return lambda connection: inbox.claim(connection, "a", subjects)

    with (
        waiting(notes_database, claim(AFTER, OURS, BEFORE), behind=claim(BEFORE)),
        transaction(notes_database) as other,
    ):
        other.exec_driver_sql("SET LOCAL lock_timeout = '1s'")

        # The consumer that waits for the first subject has locked none of the others.
        assert set(inbox.claim(other, "a", [OURS])) == {OURS}
        assert set(inbox.claim(other, "a", [AFTER])) == {AFTER}


def test_an_event_that_fails_again_shows_its_last_error(notes_database: TestDatabase) -> None:
    with transaction(notes_database) as connection:
        inbox.dead_letter(connection, "a", [a_letter(1), a_letter(2)])
        connection.exec_driver_sql("UPDATE dead_letters SET died_at = died_at - interval '1 day'")

        inbox.dead_letter(connection, "a", [a_letter(1, reason="GAP", attempts=3)])

        assert rows(connection, "SELECT reason, attempts, died_at = now() FROM dead_letters ORDER BY key") == [
            ("GAP", 3, True),
            ("Poison", 10, False),
        ]


def letters(connection: Connection, stream: str) -> list[int]:
    return [letter.key.int for letter, _ in inbox.dead_letters(connection, stream)]


def test_dead_letters_are_listed_in_the_order_in_which_they_may_be_sent_again(notes_database: TestDatabase) -> None:
    with transaction(notes_database) as connection:
        inbox.dead_letter(connection, "a", [a_letter(9)])
        connection.exec_driver_sql("UPDATE dead_letters SET died_at = died_at - interval '1 day'")
        inbox.dead_letter(connection, "a", [a_letter(4, sequence=2), a_letter(5, sequence=1), a_letter(3, sequence=2)])
        for stream in ("0", "b"):
            inbox.dead_letter(connection, stream, [a_letter(1), a_letter(2)])

        assert letters(connection, "a") == [9, 5, 3, 4]


def test_an_event_that_takes_effect_later_resolves_the_dead_letters_up_to_it_and_no_others(
    notes_database: TestDatabase,
) -> None:
    last = {OURS: Number(0, 2)}
    with transaction(notes_database) as connection:
        for stream in STREAMS:
            for subject in ALL:
                of_subject = [a_letter(10 * subject.int + n, subject=subject, sequence=n) for n in (1, 2, 3)]
                inbox.dead_letter(connection, stream, of_subject)

        inbox.revive(connection, "b", last)

        others = [11, 12, 13, 31, 32, 33]
        assert {stream: sorted(letters(connection, stream)) for stream in STREAMS} == {
            "a": sorted([*others, 21, 22, 23]),
            "b": sorted([*others, 23]),
            "c": sorted([*others, 21, 22, 23]),
        }
