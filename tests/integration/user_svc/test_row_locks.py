"""Rows of users are locked in one sequence everywhere; sweeps skip rows that are locked."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.integration.databases import transaction
from tests.integration.row_locks import holding, is_free, locking, row_of, waiting
from tests.integration.user_svc.test_bystanders import a_user, log_in
from tests.support.builders import AFTER, BEFORE, OURS
from user_svc import attempt_repository
from user_svc import repository as users_repository
from user_svc.model import UserId
from user_svc.sessions import repository as session_repository

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def signed_up(users_database: TestDatabase) -> TestDatabase:
    """The users' database, with three users: in the table the youngest comes first."""
    with transaction(users_database) as connection:
        users_repository.insert_users(connection, [a_user(number) for number in (AFTER, OURS, BEFORE)])
    return users_database


def test_users_are_locked_in_the_sequence_of_their_ids(signed_up: TestDatabase) -> None:
    def work(connection: Connection) -> object:
        return users_repository.lock_users(connection, [UserId(number) for number in (AFTER, OURS, BEFORE)])

    with waiting(signed_up, work, behind=locking(row_of("users", BEFORE))):
        assert is_free(signed_up, row_of("users", OURS))
        assert is_free(signed_up, row_of("users", AFTER))


def test_a_refresh_token_is_locked_together_with_its_session(signed_up: TestDatabase) -> None:
    with transaction(signed_up) as connection:
        log_in(connection, OURS)
        log_in(connection, AFTER)

    with transaction(signed_up) as connection:
        session_repository.lock_token(connection, OURS.bytes)

        assert [is_free(signed_up, row_of("sessions", number)) for number in (OURS, AFTER)] == [False, True]


def test_outdated_rows_that_others_hold_are_left_for_the_next_sweep(signed_up: TestDatabase) -> None:
    later = NOW + timedelta(days=60)
    with transaction(signed_up) as connection:
        for number in (BEFORE, OURS):
            log_in(connection, number)
            account = number.bytes
            assert attempt_repository.reserve(connection, account, number, now=NOW)
        connection.exec_driver_sql("UPDATE sessions SET ended_at = created_at WHERE id = %s", (BEFORE,))
    held = [row_of("sessions", OURS), row_of("attempt_reservations", OURS)]
    held += [f"SELECT 1 FROM login_attempts WHERE account = '\\x{OURS.hex}' FOR UPDATE"]

    def remove(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
        session_repository.remove_outdated(
            connection, session_repository.ENDED, after=NOW - timedelta(days=60), oldest=later
        )
        session_repository.remove_outdated(
            connection, session_repository.EXPIRED, after=NOW - timedelta(days=60), oldest=later
        )
        attempt_repository.remove_failures(connection, after=NOW - timedelta(days=60), oldest=later)
        attempt_repository.remove_reservations(connection, after=NOW - timedelta(days=60), oldest=later)

    left = [f"SELECT count(*) FROM {table}" for table in ("sessions", "login_attempts", "attempt_reservations")]
    with ExitStack() as others, transaction(signed_up) as connection:
        for row in held:
            others.enter_context(holding(signed_up, locking(row)))
        remove(connection)
    left_at_first = [signed_up.query(query) for query in left]
    with transaction(signed_up) as connection:
        remove(connection)

    assert left_at_first == [[(1,)]] * 3
    assert [signed_up.query(query) for query in left] == [[(0,)]] * 3
