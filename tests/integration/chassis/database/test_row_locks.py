"""Rows are locked in one sequence everywhere; sweeps skip rows that are locked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from chassis.database.keyed import Lookup
from chassis.events import inbox
from chassis.events.inbox import Number
from chassis.idempotency import store
from chassis.idempotency.key import IdempotencyKey
from tests.integration.databases import transaction
from tests.integration.row_locks import holding, is_free, locking, row_of, waiting
from tests.support.builders import AFTER, BEFORE, OURS
from tests.support.notes_svc import repository
from tests.support.notes_svc.model import AuthorId, NoteId

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase
    from tests.integration.row_locks import Work

_WRITE = """
    INSERT INTO notes (id, author_id, body, labels, state, created_at, updated_at, version)
    VALUES (%s, %s, '', '[]', 'OPEN', now(), now(), 1)
"""

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def written(notes_database: TestDatabase) -> TestDatabase:
    """The notes' database, with three notes: in the table the youngest comes first."""
    for number in (AFTER, OURS, BEFORE):
        notes_database.query(_WRITE, number, OURS)
    return notes_database


def lock_notes(*numbers: UUID, wait: bool) -> Work:
    wanted = [Lookup(NoteId(number)) for number in numbers]
    return lambda connection: repository.lock_notes(connection, wanted, wait=wait)


def test_only_the_notes_asked_for_are_locked(written: TestDatabase) -> None:
    with transaction(written) as connection:
        lock_notes(OURS, wait=True)(connection)

        assert [is_free(written, row_of("notes", number)) for number in (BEFORE, OURS, AFTER)] == [True, False, True]

    assert is_free(written, row_of("notes", OURS))


def test_notes_are_locked_in_the_sequence_of_their_ids(written: TestDatabase) -> None:
    work = lock_notes(AFTER, OURS, BEFORE, wait=True)

    with waiting(written, work, behind=locking(row_of("notes", BEFORE))):
        assert is_free(written, row_of("notes", OURS))
        assert is_free(written, row_of("notes", AFTER))


def test_a_call_that_does_not_wait_gets_the_unlocked_notes(written: TestDatabase) -> None:
    wanted = [Lookup(NoteId(number), AuthorId(OURS)) for number in (AFTER, OURS)]

    with holding(written, locking(row_of("notes", OURS))), transaction(written) as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
        found = repository.lock_notes(connection, wanted, wait=False)

    assert [each and each.id for each in found] == [AFTER, None]


def key(caller: str) -> IdempotencyKey:
    return IdempotencyKey(caller, "/method", OURS, b"content", NOW)


def test_keys_are_claimed_in_one_sequence_whatever_the_sequence_of_the_requests(notes_database: TestDatabase) -> None:
    def claim(*callers: str) -> Work:
        return lambda connection: store.claim(connection, [key(caller) for caller in callers])

    with (
        waiting(notes_database, claim("c", "b", "a"), behind=claim("a")),
        transaction(notes_database) as other,
    ):
        other.exec_driver_sql("SET LOCAL lock_timeout = '1s'")

        # A transaction that waits for `a` has not locked `b` and `c` yet.
        assert store.claim(other, [key("b")]) == {("b", "/method", OURS)}
        assert store.claim(other, [key("c")]) == {("c", "/method", OURS)}


def test_two_consumers_of_one_subject_wait_for_each_other_also_when_it_is_new(notes_database: TestDatabase) -> None:
    found: list[object] = []

    def first(connection: Connection) -> None:
        assert inbox.claim(connection, "stream", [OURS]) == {OURS: Number(0, 0)}
        inbox.advance(connection, "stream", {OURS: Number(0, 1)})

    def second(connection: Connection) -> None:
        found.append(inbox.claim(connection, "stream", [OURS]))

    with waiting(notes_database, second, behind=first):
        assert found == []

    assert found == [{OURS: Number(0, 1)}]
