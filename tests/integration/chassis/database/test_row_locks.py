"""Rows are locked in one sequence everywhere; sweeps skip rows that are locked."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from chassis.database.keyed import Lookup
from chassis.events import inbox
from chassis.events.inbox import Number
from chassis.idempotency import store
from chassis.idempotency.key import IdempotencyKey
from order_svc import repository as orders_repository
from order_svc.model import BuyerId, OrderId
from tests.integration.test_bystanders import AFTER, BEFORE, OURS, a_user, an_order_of, log_in, place, transaction
from tests.support.waiting import until
from user_svc import attempt_repository
from user_svc import repository as users_repository
from user_svc.model import UserId
from user_svc.sessions import repository as session_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy import Connection

    from tests.integration.conftest import TestDatabase

    Work = Callable[[Connection], object]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row_of(table: str, number: UUID) -> str:
    return f"SELECT 1 FROM {table} WHERE id = '{number}' FOR UPDATE"


def is_free(database: TestDatabase, row: str) -> bool:
    """Return whether the row is unlocked."""
    try:
        database.query(f"{row} NOWAIT")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def locking(row: str) -> Work:
    return lambda connection: connection.exec_driver_sql(row)


@contextmanager
def holding(database: TestDatabase, work: Work) -> Iterator[None]:
    """Have the locks of the work while the block runs."""
    with transaction(database) as connection:
        work(connection)
        yield


@contextmanager
def waiting(database: TestDatabase, work: Work, *, behind: Work) -> Iterator[None]:
    """Run the work in a transaction that waits while the block runs for one that has the locks of the other work."""

    def run() -> None:
        with transaction(database) as connection:
            work(connection)

    thread = threading.Thread(target=run)
    with holding(database, behind):
        thread.start()
        until(lambda: database.waiting() > 0)
        yield
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def placed(orders_database: TestDatabase) -> TestDatabase:
    """The orders' database, with three orders: in the table the youngest comes first."""
    with transaction(orders_database) as connection:
        for number in (AFTER, OURS, BEFORE):
            place(connection, an_order_of(OURS, number=number))
    return orders_database


@pytest.fixture
def signed_up(users_database: TestDatabase) -> TestDatabase:
    """The users' database, with three users: in the table the youngest comes first."""
    with transaction(users_database) as connection:
        users_repository.insert_users(connection, [a_user(number) for number in (AFTER, OURS, BEFORE)])
    return users_database


def lock_orders(*numbers: UUID, wait: bool) -> Work:
    wanted = [Lookup(OrderId(number)) for number in numbers]
    return lambda connection: orders_repository.lock_orders(connection, wanted, wait=wait)


def test_only_the_orders_asked_for_are_locked(placed: TestDatabase) -> None:
    with transaction(placed) as connection:
        lock_orders(OURS, wait=True)(connection)

        assert [is_free(placed, row_of("orders", number)) for number in (BEFORE, OURS, AFTER)] == [True, False, True]

    assert is_free(placed, row_of("orders", OURS))


def test_orders_are_locked_in_the_sequence_of_their_ids(placed: TestDatabase) -> None:
    work = lock_orders(AFTER, OURS, BEFORE, wait=True)

    with waiting(placed, work, behind=locking(row_of("orders", BEFORE))):
        assert is_free(placed, row_of("orders", OURS))
        assert is_free(placed, row_of("orders", AFTER))


def test_a_call_that_does_not_wait_gets_the_unlocked_orders(placed: TestDatabase) -> None:
    wanted = [Lookup(OrderId(number), BuyerId(OURS)) for number in (AFTER, OURS)]

    with holding(placed, locking(row_of("orders", OURS))), transaction(placed) as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
        found = orders_repository.lock_orders(connection, wanted, wait=False)

    assert [each and each.id for each in found] == [AFTER, None]


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
        session_repository.remove_ended(connection, oldest=later)
        session_repository.remove_expired(connection, oldest=later)
        attempt_repository.remove_failures(connection, oldest=later)
        attempt_repository.remove_reservations(connection, now=later)

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


def key(caller: str) -> IdempotencyKey:
    return IdempotencyKey(caller, "/method", OURS, b"content", NOW)


def test_keys_are_claimed_in_one_sequence_whatever_the_sequence_of_the_requests(orders_database: TestDatabase) -> None:
    def claim(*callers: str) -> Work:
        return lambda connection: store.claim(connection, [key(caller) for caller in callers])

    with (
        waiting(orders_database, claim("c", "b", "a"), behind=claim("a")),
        transaction(orders_database) as other,
    ):
        other.exec_driver_sql("SET LOCAL lock_timeout = '1s'")

        # A transaction that waits for `a` has not locked `b` and `c` yet.
        assert store.claim(other, [key("b")]) == {("b", "/method", OURS)}
        assert store.claim(other, [key("c")]) == {("c", "/method", OURS)}


def test_two_consumers_of_one_subject_wait_for_each_other_also_when_it_is_new(orders_database: TestDatabase) -> None:
    found: list[object] = []

    def first(connection: Connection) -> None:
        assert inbox.claim(connection, "stream", [OURS]) == {OURS: Number(0, 0)}
        inbox.advance(connection, "stream", {OURS: Number(0, 1)})

    def second(connection: Connection) -> None:
        found.append(inbox.claim(connection, "stream", [OURS]))

    with waiting(orders_database, second, behind=first):
        assert found == []

    assert found == [{OURS: Number(0, 1)}]
