"""A statement about one row leaves every other row as it was, whichever of them is older.

Ids sort by time, so each test has a neighbour on both sides: a condition that is too wide reaches one of them.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import create_engine

from chassis.database.keyed import Lookup
from chassis.events import inbox, outbox
from chassis.events.inbox import Number
from chassis.events.redis_streams import START
from chassis.idempotency import store
from chassis.idempotency.key import IdempotencyKey
from chassis.idempotency.store import ResponseCodec
from chassis.server.pagination import PageRequest
from order_svc import buyer_projection, deleted_buyers
from order_svc import repository as orders_repository
from order_svc.buyer_projection import KnownUser, UserState
from order_svc.model import BuyerId, OrderFilter, OrderId, OrderStatus
from order_svc.repository import StatusUpdate
from tests.support.builders import a_user as built_user
from tests.support.builders import an_order
from user_svc import attempt_repository
from user_svc import repository as users_repository
from user_svc.attempt_repository import Outcome
from user_svc.errors import TooManyAttempts
from user_svc.model import Email, UserId
from user_svc.sessions import repository as session_repository
from user_svc.sessions.model import RefreshToken, Session, SessionId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from order_svc.model import Order
    from tests.integration.conftest import TestDatabase

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEFORE, OURS, AFTER = (UUID(int=n) for n in (1, 2, 3))
ALL = (BEFORE, OURS, AFTER)


@contextmanager
def transaction(database: TestDatabase) -> Iterator[Connection]:
    """Open a transaction, committed at the end of the block."""
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture
def users(users_database: TestDatabase) -> Iterator[Connection]:
    with transaction(users_database) as connection:
        yield connection


@pytest.fixture
def orders(orders_database: TestDatabase) -> Iterator[Connection]:
    with transaction(orders_database) as connection:
        yield connection


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(query)]


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


def test_erasing_the_stored_responses_about_one_resource_leaves_the_others(users: Connection) -> None:
    keep(users, ALL)

    store.erase_responses(users, [OURS])

    assert kept(users) == [BEFORE, AFTER]
    # The fingerprint is a digest of what was erased, and can be guessed from it.
    query = "SELECT resource_id, fingerprint = '' FROM idempotency_keys ORDER BY 1"
    assert rows(users, query) == [(BEFORE, False), (OURS, True), (AFTER, False)]


def test_a_response_is_stored_with_its_own_key_only(users: Connection) -> None:
    store.claim(users, [key(1), key(2), key(3)])

    store.complete(users, [(key(2), OURS)], codec=CODEC)

    assert rows(users, "SELECT resource_id, response FROM idempotency_keys ORDER BY request_id") == [
        (None, None),
        (OURS, b'"x"'),
        (None, None),
    ]


def test_a_key_that_is_released_is_free_and_the_others_are_not(users: Connection) -> None:
    store.claim(users, [key(1), key(2), key(3)])

    store.release(users, [key(2)])

    assert store.claim(users, [key(1), key(2), key(3)]) == {("ada", "/method", OURS)}


def test_an_expired_key_that_is_claimed_again_holds_no_earlier_response(users: Connection) -> None:
    keep(users, [OURS])
    later = NOW + timedelta(hours=24, seconds=1)
    again = IdempotencyKey("ada", "/method", OURS, b"other content", later)

    assert store.claim(users, [again]) == {("ada", "/method", OURS)}

    query = "SELECT fingerprint, resource_id, response, created_at FROM idempotency_keys"
    assert rows(users, query) == [(b"other content", None, None, later)]


# The inbox


def test_sequences_are_kept_per_stream_and_subject(orders: Connection) -> None:
    for stream in ("a", "b", "c"):
        inbox.claim(orders, stream, ALL)

    inbox.advance(orders, "b", {OURS: Number(0, 5)})

    none = Number(0, 0)
    assert inbox.claim(orders, "a", ALL) == dict.fromkeys(ALL, none)
    assert inbox.claim(orders, "b", ALL) == {BEFORE: none, OURS: Number(0, 5), AFTER: none}
    assert inbox.claim(orders, "c", ALL) == dict.fromkeys(ALL, none)


def test_the_watermark_of_a_stream_is_its_own_and_follows_the_publishers_clock(orders: Connection) -> None:
    def note(stream: str, as_of: datetime | None, *, known: str | None = "0-0") -> None:
        assert inbox.save_position(orders, stream, known=known, position=START, as_of=as_of)

    for n, stream in enumerate(("a", "b", "c")):
        note(stream, NOW + timedelta(hours=n), known=None)

    note("c", NOW + timedelta(hours=9))
    note("b", NOW)  # an hour ago: the clock was ahead
    note("a", None)

    assert {stream: inbox.as_of(orders, stream) for stream in ("0", "a", "aa", "b", "c", "d")} == {
        "0": None,
        "a": NOW,
        "aa": None,
        "b": NOW,
        "c": NOW + timedelta(hours=9),
        "d": None,
    }


# The outbox


def write(connection: Connection, subject: UUID, sequence: int) -> None:
    outbox.add(connection, [outbox.Event("order.created", subject, sequence, {}, NOW, traceparent="")])


def test_an_event_follows_the_last_one_of_its_own_subject(orders: Connection) -> None:
    for number, subject in enumerate(ALL, start=1):
        write(orders, subject, 1)
        orders.exec_driver_sql(
            "UPDATE outbox SET transaction = (transaction::text::bigint + %s)::text::xid8 WHERE subject = %s",
            (1_000_000 * number, subject),
        )

    write(orders, OURS, 2)

    query = "SELECT transaction = (SELECT max(transaction) FROM outbox WHERE subject = %s AND sequence = 1) FROM outbox"
    assert orders.exec_driver_sql(f"{query} WHERE subject = %s AND sequence = 2", (OURS, OURS)).all() == [(True,)]


# Orders


def place(connection: Connection, order: Order) -> None:
    connection.exec_driver_sql(
        "INSERT INTO orders (id, user_id, status, currency_code, items, total_amount, cancel_reason, created_at,"
        " updated_at, version) VALUES (%s, %s, %s, 'EUR', '[]', 7, '', %s, %s, %s)",
        (order.id, order.user_id, order.status.value, order.created_at, order.updated_at, order.version),
    )


def an_order_of(owner: UUID, *, number: UUID = OURS, **changes: Any) -> Order:
    return an_order(id=OrderId(number), user_id=BuyerId(owner), **changes)


def updated(order: Order, status: OrderStatus) -> StatusUpdate:
    later = NOW + timedelta(minutes=5)
    changed = dataclasses.replace(order, status=status, version=order.version + 1, updated_at=later, cancel_reason="no")
    event = outbox.Event("order.status_changed", order.id, changed.version, {}, later, traceparent="")
    return StatusUpdate(changed, order.status, "why", event)


@pytest.mark.parametrize("stranger", [BEFORE, AFTER])
def test_an_owner_sees_no_order_of_a_user_with_a_neighbouring_id(orders: Connection, stranger: UUID) -> None:
    place(orders, an_order_of(OURS))
    wanted = [
        Lookup(OrderId(OURS), BuyerId(stranger)),
        Lookup(OrderId(OURS), BuyerId(OURS)),
        Lookup(OrderId(OURS)),
    ]

    found = orders_repository.lock_orders(orders, wanted, wait=True)

    assert [each is not None for each in found] == [False, True, True]


def test_each_order_is_found_by_its_own_id(orders: Connection) -> None:
    for number in ALL:
        place(orders, an_order_of(OURS, number=number))
    wanted = [Lookup(OrderId(number)) for number in (AFTER, BEFORE, UUID(int=9), OURS)]

    found = orders_repository.lock_orders(orders, wanted, wait=False)

    assert [each and each.id for each in found] == [AFTER, BEFORE, None, OURS]


def test_a_status_change_writes_its_own_order_completely_and_no_other(orders: Connection) -> None:
    placed = {number: an_order_of(OURS, number=number) for number in ALL}
    for order in placed.values():
        place(orders, order)

    orders_repository.update_orders(orders, [updated(placed[OURS], OrderStatus.CANCELLED)])

    query = "SELECT id, status, cancel_reason, updated_at, version FROM orders ORDER BY id"
    assert rows(orders, query) == [
        (BEFORE, "PENDING", "", placed[BEFORE].updated_at, 1),
        (OURS, "CANCELLED", "no", NOW + timedelta(minutes=5), 2),
        (AFTER, "PENDING", "", placed[AFTER].updated_at, 1),
    ]
    assert rows(orders, "SELECT order_id, from_status, to_status FROM order_events") == [(OURS, "PENDING", "CANCELLED")]


@pytest.mark.parametrize("version", [1, 3])
def test_an_order_is_not_written_over_an_unread_version(orders: Connection, version: int) -> None:
    place(orders, an_order_of(OURS, version=version))

    orders_repository.update_orders(orders, [updated(an_order_of(OURS, version=2), OrderStatus.CONFIRMED)])

    assert rows(orders, "SELECT status, version FROM orders") == [("PENDING", version)]


# The projection of users


def know(connection: Connection, user_id: UUID, state: UserState, *, at: datetime = NOW) -> None:
    buyer_projection.put_users(connection, [KnownUser(id=BuyerId(user_id), state=state, updated_at=at)])


def test_the_projection_of_a_user_follows_its_last_event_and_leaves_the_others(orders: Connection) -> None:
    for user_id in ALL:
        know(orders, user_id, UserState.ACTIVE)

    know(orders, OURS, UserState.SUSPENDED, at=NOW + timedelta(hours=1))

    assert rows(orders, "SELECT id, state, updated_at FROM known_users ORDER BY id") == [
        (BEFORE, "ACTIVE", NOW),
        (OURS, "SUSPENDED", NOW + timedelta(hours=1)),
        (AFTER, "ACTIVE", NOW),
    ]
    assert buyer_projection.find_states(orders, [BuyerId(OURS)]) == {OURS: UserState.SUSPENDED}


def test_a_deleted_user_stays_deleted_with_the_time_of_the_first_event(orders: Connection) -> None:
    know(orders, OURS, UserState.DELETED)

    know(orders, OURS, UserState.ACTIVE, at=NOW + timedelta(hours=1))

    assert rows(orders, "SELECT state, updated_at FROM known_users") == [("DELETED", NOW)]


def test_a_change_has_the_time_at_which_it_took_effect(orders: Connection, orders_database: TestDatabase) -> None:
    know(orders, OURS, UserState.ACTIVE)
    orders.exec_driver_sql("UPDATE known_users SET applied_at = applied_at - interval '1 day'")

    know(orders, OURS, UserState.DELETED)

    assert rows(orders, "SELECT applied_at = now() FROM known_users") == [(True,)]


def test_only_open_orders_of_the_given_users_are_found_for_cancellation_oldest_first(orders: Connection) -> None:
    numbers = [UUID(int=n) for n in range(1, 8)]
    owners = [OURS, OURS, OURS, OURS, BEFORE, AFTER, OURS]
    states = [OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.PENDING, OrderStatus.CANCELLED]
    states += [OrderStatus.PENDING, OrderStatus.PENDING, OrderStatus.PROCESSING]
    for number, owner, status in reversed(list(zip(numbers, owners, states, strict=True))):
        place(orders, an_order_of(owner, number=number, status=status))

    assert deleted_buyers.open_orders_of(orders, [BuyerId(OURS)], batch=10) == [numbers[0], numbers[2], numbers[6]]
    assert deleted_buyers.open_orders_of(orders, [BuyerId(OURS)], batch=2) == [numbers[0], numbers[2]]


def test_a_recently_deleted_user_with_open_orders_is_found_once(orders: Connection) -> None:
    long_ago, with_shipped, active = UUID(int=4), UUID(int=5), UUID(int=6)
    for user_id in (OURS, long_ago, with_shipped, BEFORE):
        know(orders, user_id, UserState.DELETED)
    for user_id in (AFTER, active):
        know(orders, user_id, UserState.ACTIVE)
    orders.exec_driver_sql("UPDATE known_users SET applied_at = now() - interval '1 hour' WHERE id = %s", (long_ago,))
    for number, owner in enumerate([OURS, OURS, long_ago, AFTER, active], start=1):
        place(orders, an_order_of(owner, number=UUID(int=number)))
    place(orders, an_order_of(with_shipped, number=UUID(int=9), status=OrderStatus.SHIPPED))

    assert deleted_buyers.deleted_with_open_orders(orders, within_s=600) == [OURS]


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
    assert (locked[0], locked[1].id) == (RefreshToken(OURS.bytes, SessionId(OURS), NOW), OURS)


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

    session_repository.remove_expired(users, oldest=NOW - day)
    session_repository.remove_ended(users, oldest=NOW - day)
    attempt_repository.remove_failures(users, oldest=NOW - day)

    assert [found.int for (found,) in rows(users, "SELECT id FROM sessions ORDER BY id")] == [2, 4, 5, 6]
    assert rows(users, "SELECT account FROM login_attempts ORDER BY last_at") == [(b"day",), (b"new",)]


# Lists


def test_a_list_is_in_its_order_and_goes_on_behind_its_last(orders: Connection) -> None:
    numbers = [UUID(int=n) for n in range(1, 6)]
    for number in (numbers[2], numbers[0], numbers[4], numbers[1], numbers[3]):
        place(orders, an_order_of(OURS, number=number))
    filters = OrderFilter(owner=None, user_id=None, status=None)

    first = orders_repository.list_orders(orders, PageRequest(2, None), filters=filters)
    second = orders_repository.list_orders(orders, PageRequest(2, numbers[3]), filters=filters)

    last = orders_repository.list_orders(orders, PageRequest(2, numbers[1]), filters=filters)

    assert [([each.id.int for each in found], has_more) for found, has_more in (first, second, last)] == [
        ([5, 4], True),
        ([3, 2], True),
        ([1], False),
    ]
