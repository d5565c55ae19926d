"""A statement about one user leaves every other row as it was, whichever of them is older.

Ids sort by time, so each test has a neighbour on both sides: a condition that is too wide reaches one of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.integration.databases import rows, transaction
from tests.services.user_svc.builders import a_user as built_user
from tests.support.builders import AFTER, ALL, BEFORE, OURS
from user_svc import attempt_repository
from user_svc import repository as users_repository
from user_svc.attempt_repository import Outcome
from user_svc.errors import TooManyAttempts
from user_svc.model import Email, UserId
from user_svc.sessions import repository as session_repository
from user_svc.sessions.model import Session, SessionId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.integration.databases import TestDatabase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def users(users_database: TestDatabase) -> Iterator[Connection]:
    with transaction(users_database) as connection:
        yield connection


# Users and their sessions


def a_user(number: UUID, **changes: Any) -> Any:
    email = Email.parse(f"user{number.int}@example.com")
    return built_user(id=UserId(number), email=email, **changes)


def sign_up(connection: Connection) -> None:
    """Write three users."""
    assert users_repository.insert_users(connection, [a_user(number) for number in ALL]) == list(ALL)


def log_in(connection: Connection, number: UUID, *, user_id: UUID = OURS) -> None:
    """Write a session of this number with a token of the same."""
    session = Session(
        id=SessionId(number),
        user_id=UserId(user_id),
        chain_key=b"k" * 32,
        created_at=NOW,
        expires_at=NOW + timedelta(days=30),
    )
    session_repository.insert_session(connection, session, token_hash=number.bytes)


def ended(connection: Connection) -> list[UUID]:
    return [found for (found,) in rows(connection, "SELECT id FROM sessions WHERE ended_at IS NOT NULL ORDER BY id")]


def test_a_new_hash_is_its_users_only(users: Connection) -> None:
    sign_up(users)

    users_repository.rehash(users, UserId(OURS), password_hash="new")

    assert rows(users, "SELECT id FROM users WHERE password_hash = 'new'") == [(OURS,)]


@pytest.mark.parametrize("owner", ALL)
def test_a_lookup_by_an_owner_locks_the_owners_row_only(users: Connection, owner: UUID) -> None:
    sign_up(users)

    found = users_repository.lock_users(users, [UserId(number) for number in (AFTER, OURS)], owner=UserId(owner))

    assert [user.id for user in found] == ([owner] if owner != BEFORE else [])


@pytest.mark.parametrize(("version", "expected"), [(2, "new"), (1, "Ada"), (3, "Ada")])
def test_a_user_is_written_over_the_read_version_and_no_other_user_is(
    users: Connection, version: int, expected: str
) -> None:
    sign_up(users)

    users_repository.replace_users(users, [a_user(OURS, display_name="new", version=version)])

    found = {user_id: name for user_id, name in rows(users, "SELECT id, display_name FROM users")}  # noqa: C416  pairs
    assert found == {BEFORE: "Ada", OURS: expected, AFTER: "Ada"}


def test_a_used_token_is_one_token(users: Connection) -> None:
    sign_up(users)
    for number in ALL:
        log_in(users, number)

    session_repository.mark_used(users, OURS.bytes, now=NOW)

    assert [session_repository.is_used(users, number.bytes) for number in ALL] == [False, True, False]
    locked = session_repository.lock_token(users, OURS.bytes)
    assert locked is not None
    assert (locked[0], locked[1].id) == (NOW, OURS)


@pytest.mark.parametrize(("owner", "expected"), [(OURS, [OURS]), (None, [OURS]), (BEFORE, []), (AFTER, [])])
def test_a_session_is_ended_alone_and_by_its_owner(users: Connection, owner: UUID | None, expected: list[UUID]) -> None:
    sign_up(users)
    for number in ALL:
        log_in(users, number)

    by = None if owner is None else UserId(owner)
    session_repository.end_session(users, SessionId(OURS), owner=by, now=NOW)

    assert ended(users) == expected


def test_a_session_keeps_its_first_end(users: Connection) -> None:
    sign_up(users)
    log_in(users, OURS)
    session_repository.end_session(users, SessionId(OURS), owner=None, now=NOW)

    session_repository.end_session(users, SessionId(OURS), owner=None, now=NOW + timedelta(hours=1))
    session_repository.end_sessions_of(users, [UserId(OURS)], now=NOW + timedelta(hours=2))

    assert rows(users, "SELECT ended_at FROM sessions") == [(NOW,)]


def test_a_users_other_sessions_end_and_sessions_of_other_users_stay(users: Connection) -> None:
    sign_up(users)
    for number in ALL:
        log_in(users, number)
    log_in(users, UUID(int=4), user_id=BEFORE)
    log_in(users, UUID(int=5), user_id=AFTER)

    session_repository.end_sessions_of(users, [UserId(OURS)], but=SessionId(OURS), now=NOW)

    assert ended(users) == [BEFORE, AFTER]


def test_all_open_sessions_are_ended_once_in_batches(
    users: Connection,
) -> None:
    sign_up(users)
    users.exec_driver_sql(
        "INSERT INTO sessions (id, user_id, chain_key, created_at, expires_at, ended_at)"
        " SELECT lpad(to_hex(2010 - n), 32, '0')::uuid, %s, 'k', %s, %s, CASE WHEN n %% 2 = 0 THEN %s END"
        " FROM generate_series(1, 2009) n",
        (OURS, NOW, NOW + timedelta(days=30), NOW),
    )
    later = NOW + timedelta(hours=1)

    portions = []
    after = UUID(int=3)
    while portion := session_repository.end_some(users, after=after, now=later):
        portions.append(portion)
        after = portion[0]

    assert [(last.int, count) for last, count in portions] == [(2003, 1000), (2009, 3)]
    open_or_ended = "SELECT ended_at, count(*) FROM sessions GROUP BY 1 ORDER BY 1"
    assert rows(users, open_or_ended) == [(NOW, 1004), (later, 1003), (None, 2)]


def attempt(connection: Connection, account: bytes, outcome: Outcome, *, now: datetime = NOW) -> None:
    """Make an attempt at an account that need not wait."""
    assert attempt_repository.reserve(connection, account, OURS, now=now)
    attempt_repository.settle(connection, account, OURS, outcome, now=now)


def wait_of(connection: Connection, account: bytes, *, now: datetime = NOW) -> float:
    """Return how long an account has to wait, in seconds."""
    try:
        attempt_repository.require_no_wait(connection, account, now=now)
    except TooManyAttempts as error:
        return error.retry_after_s or 0
    return 0


def test_failures_are_counted_per_account(users: Connection) -> None:
    accounts = (b"a", b"b", b"c")
    for account in accounts:
        for _ in range(4):
            attempt(users, account, Outcome.WRONG)

    attempt(users, b"b", Outcome.RIGHT)
    for account in accounts:
        attempt(users, account, Outcome.WRONG)

    assert [wait_of(users, account) for account in accounts] == [1, 0, 1]


def test_each_failure_from_the_fifth_on_doubles_the_wait_of_its_account_alone(users: Connection) -> None:
    now = NOW
    attempt(users, b"other", Outcome.WRONG, now=now)
    for failures in range(1, 9):
        attempt(users, b"ours", Outcome.WRONG, now=now)
        wait = timedelta(seconds=2 ** (failures - 5)) if failures >= 5 else timedelta(0)
        query = "SELECT failures, locked_until FROM login_attempts WHERE account = 'ours'"
        assert rows(users, query) == [(failures, now + wait)]
        now += wait

    assert rows(users, "SELECT failures, locked_until FROM login_attempts WHERE account = 'other'") == [(1, NOW)]


def test_a_settled_attempt_frees_its_own_reservation_only(users: Connection) -> None:
    free = 5
    assert all(attempt_repository.reserve(users, b"a", UUID(int=n), now=NOW) for n in range(free))
    assert not attempt_repository.reserve(users, b"a", UUID(int=99), now=NOW)

    attempt_repository.settle(users, b"a", UUID(int=0), Outcome.UNKNOWN, now=NOW)

    assert attempt_repository.reserve(users, b"a", UUID(int=100), now=NOW)
    assert not attempt_repository.reserve(users, b"a", UUID(int=101), now=NOW)


def test_after_free_attempts_there_is_one_at_a_time(users: Connection) -> None:
    for _ in range(5):
        attempt(users, b"a", Outcome.WRONG)
    later = NOW + timedelta(seconds=2)

    assert attempt_repository.reserve(users, b"a", UUID(int=1), now=later)
    assert not attempt_repository.reserve(users, b"a", UUID(int=2), now=later)


def test_an_account_whose_failures_are_forgotten_has_all_its_free_attempts_again(users: Connection) -> None:
    for _ in range(4):
        attempt(users, b"a", Outcome.WRONG)
    later = NOW + timedelta(days=1, seconds=1)

    reserved = [attempt_repository.reserve(users, b"a", UUID(int=n), now=later) for n in range(6)]

    assert reserved == [True] * 5 + [False]


@pytest.mark.parametrize(("later", "failures"), [(timedelta(days=1), 2), (timedelta(days=1, microseconds=1), 1)])
def test_failures_are_forgotten_after_a_day(users: Connection, later: timedelta, failures: int) -> None:
    attempt(users, b"a", Outcome.WRONG)

    attempt(users, b"a", Outcome.WRONG, now=NOW + later)

    assert rows(users, "SELECT failures FROM login_attempts") == [(failures,)]


def test_only_outdated_rows_are_removed(users: Connection) -> None:
    sign_up(users)
    day = timedelta(days=1)
    for number in range(1, 7):
        log_in(users, UUID(int=number))
    instant = timedelta(microseconds=1)
    times = [(NOW - day - instant, None), (NOW - day, None), (NOW + day, NOW - day - instant), (NOW + day, NOW - day)]
    times += [(NOW + day, NOW), (NOW + day, None)]
    for number, (expires_at, ended_at) in enumerate(times, start=1):
        query = "UPDATE sessions SET expires_at = %s, ended_at = %s WHERE id = %s"
        users.exec_driver_sql(query, (expires_at, ended_at, UUID(int=number)))
    for account, at in ((b"old", NOW - day - instant), (b"day", NOW - day), (b"new", NOW)):
        attempt(users, account, Outcome.WRONG, now=at)

    session_repository.remove_outdated(users, session_repository.EXPIRED, after=NOW - 100 * day, oldest=NOW - day)
    session_repository.remove_outdated(users, session_repository.ENDED, after=NOW - 100 * day, oldest=NOW - day)
    attempt_repository.remove_failures(users, after=NOW - 100 * day, oldest=NOW - day)

    assert [found.int for (found,) in rows(users, "SELECT id FROM sessions ORDER BY id")] == [2, 4, 5, 6]
    assert rows(users, "SELECT account FROM login_attempts ORDER BY last_at") == [(b"day",), (b"new",)]
