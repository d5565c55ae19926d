"""Guessing passwords: its cost, its limits, and that the account's owner can still log in."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import argon2
import pytest
from grpc import StatusCode, aio
from shop.user.v1 import session_service_pb2 as pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.database import Database
from chassis.testing import bearer, new_uuid, plain_channel, refusal_of, token_of, until
from tests.integration.inprocess import database_settings
from tests.integration.user_svc.inprocess import CHEAP, user_service
from tests.integration.user_svc.logins import EMAIL, log_in
from tests.support.requests import PASSWORD, create_user_request
from user_svc import attempts
from user_svc.attempt_repository import RESERVED_FOR
from user_svc.attempts import Attempt, Attempts, account_of
from user_svc.passwords import Passwords
from user_svc.settings import PasswordSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock, Refusal
    from tests.integration.databases import TestDatabase

NOBODY = "nobody@example.com"
FREE = 5
LONGEST_WAIT = timedelta(minutes=5)


# A hash of some 20 ms: callers can leave while it is made.
SLOW = PasswordSettings(memory_kib=16 * 1024)


class Argon2Runs:
    """Counts all runs of argon2.

    Attributes:
        count: of hashes made and checked.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *, names: tuple[str, ...] = ("hash", "verify")) -> None:
        self.count = 0
        for name in names:
            patch.setattr(argon2.PasswordHasher, name, self._counted(getattr(argon2.PasswordHasher, name)))

    def _counted(self, method: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return method(*args, **kwargs)

        return counted


@pytest.fixture
def argon2_runs(ada: User, monkeypatch: pytest.MonkeyPatch) -> Argon2Runs:
    """The runs of argon2 after Ada was created."""
    return Argon2Runs(monkeypatch)


async def guess(sessions: SessionServiceAsyncStub, email: str = EMAIL) -> Refusal:
    return await refusal_of(log_in(sessions, email, "a wrong password"))


async def test_1000_guesses_in_10_minutes_are_15_hashes_and_the_owner_gets_in_5_minutes_later(
    sessions: SessionServiceAsyncStub, clock: ManualClock, argon2_runs: Argon2Runs
) -> None:
    for _ in range(1000):
        await guess(sessions)
        clock.advance(timedelta(seconds=0.6))
    runs = argon2_runs.count
    clock.advance(LONGEST_WAIT)

    session = await log_in(sessions)

    assert session.id
    assert FREE < runs <= 15


async def test_the_wait_begins_with_a_second_and_doubles_up_to_5_minutes(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    for _ in range(FREE):
        assert (await guess(sessions)).reason == "INVALID_CREDENTIALS"
    waits = []

    for _ in range(11):
        refusal = await guess(sessions)
        assert (refusal.code, refusal.domain) == (StatusCode.RESOURCE_EXHAUSTED, "shop.user.v1")
        assert refusal.reason == "TOO_MANY_ATTEMPTS"
        assert refusal.retry_after_s
        waits.append(refusal.retry_after_s)
        assert refusal.retry_after_header == str(int(refusal.retry_after_s))
        clock.advance(timedelta(seconds=refusal.retry_after_s))
        assert (await guess(sessions)).reason == "INVALID_CREDENTIALS"

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


async def test_the_right_password_waits_like_a_wrong_one(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    for _ in range(FREE):
        await guess(sessions)

    refusal = await refusal_of(log_in(sessions))
    clock.advance(timedelta(seconds=1))

    assert refusal.reason == "TOO_MANY_ATTEMPTS"
    assert (await log_in(sessions)).user_id == ada.id


async def test_a_guess_that_has_to_wait_costs_no_hash_and_prolongs_nothing(
    sessions: SessionServiceAsyncStub, clock: ManualClock, argon2_runs: Argon2Runs
) -> None:
    for _ in range(FREE):
        await guess(sessions)
    before = argon2_runs.count

    refusals = [await guess(sessions) for _ in range(20)]

    assert argon2_runs.count == before
    assert {each.retry_after_s for each in refusals} == {1}


@pytest.mark.parametrize("email", [EMAIL, NOBODY])
async def test_50_guesses_at_once_are_5_tries(
    sessions: SessionServiceAsyncStub, argon2_runs: Argon2Runs, email: str
) -> None:
    refusals = await asyncio.gather(*(guess(sessions, email) for _ in range(50)))

    assert Counter(each.reason for each in refusals) == {"INVALID_CREDENTIALS": FREE, "TOO_MANY_ATTEMPTS": 45}
    assert argon2_runs.count == FREE


async def test_a_login_forgets_the_failures_before_it(sessions: SessionServiceAsyncStub, ada: User) -> None:
    for _ in range(3):
        for _ in range(FREE - 1):
            assert (await guess(sessions)).reason == "INVALID_CREDENTIALS"

        assert (await log_in(sessions)).user_id == ada.id


async def test_failures_are_forgotten_after_a_day(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    for _ in range(FREE):
        await guess(sessions)
    clock.advance(timedelta(days=1, seconds=1))

    assert [(await guess(sessions)).reason for _ in range(FREE)] == ["INVALID_CREDENTIALS"] * FREE


async def test_guesses_at_one_account_do_not_touch_another(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, ada: User
) -> None:
    other = await users.CreateUser(create_user_request(email="bob@example.com"))
    for _ in range(FREE + 1):
        await guess(sessions)

    assert (await log_in(sessions, "bob@example.com")).user_id == other.id


async def test_every_way_to_write_an_email_is_one_account(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub
) -> None:
    await users.CreateUser(create_user_request(email="ada@bücher.example"))
    ways = ["ada@bücher.example", "ADA@BÜCHER.example", "ada@xn--bcher-kva.example", "Ada@XN--BCHER-KVA.EXAMPLE"]

    refusals = [await guess(sessions, ways[number % len(ways)]) for number in range(FREE + 1)]

    assert [each.reason for each in refusals] == ["INVALID_CREDENTIALS"] * FREE + ["TOO_MANY_ATTEMPTS"]


async def test_guesses_do_not_reveal_whether_an_account_exists(
    sessions: SessionServiceAsyncStub, clock: ManualClock, argon2_runs: Argon2Runs
) -> None:
    told: dict[str, list[bytes]] = {EMAIL: [], NOBODY: []}
    runs: dict[str, int] = {}

    for email, answers in told.items():
        before = argon2_runs.count
        for _ in range(12):
            answers.append((await guess(sessions, email)).status.SerializeToString())
            clock.advance(timedelta(seconds=0.5))
        runs[email] = argon2_runs.count - before

    assert told[EMAIL] == told[NOBODY]
    assert runs[EMAIL] == runs[NOBODY]


async def test_a_clock_that_is_behind_does_not_lock_an_account_during_its_free_attempts(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    # Another replica's, or this one's: two calls read the clock in one order and reach the database in the other.
    await guess(sessions)
    clock.advance(timedelta(milliseconds=-5))

    assert (await log_in(sessions)).user_id == ada.id


async def test_a_known_email_takes_as_long_as_an_unknown_one(users_database: TestDatabase, clock: ManualClock) -> None:
    # In CPU time, by turns: what else runs on the machine would drown 5 % of the time on the wall. A sixth of the
    # memory of production: the rest of a call is then a larger part of it than it is there.
    hashing = PasswordSettings(memory_kib=8 * 1024)
    took_s: dict[str, list[float]] = {EMAIL: [], NOBODY: []}
    settings = database_settings(users_database.url)
    async with (
        user_service(settings, clock=clock, hashing=hashing) as address,
        plain_channel(address, token="") as channel,
    ):
        await UserServiceStub(channel).CreateUser(create_user_request(email=EMAIL))
        sessions = SessionServiceStub(channel)

        for number in range(200):
            clock.advance(timedelta(days=1, seconds=1))
            for email in (EMAIL, NOBODY) if number % 2 else (NOBODY, EMAIL):
                began_s = time.process_time()
                refusal = await guess(sessions, email)
                took_s[email].append(time.process_time() - began_s)
                assert refusal.reason == "INVALID_CREDENTIALS"

    known_s, unknown_s = statistics.median(took_s[EMAIL]), statistics.median(took_s[NOBODY])
    assert abs(known_s - unknown_s) / max(known_s, unknown_s) < 0.05, f"{known_s * 1e3} and {unknown_s * 1e3} ms"


@pytest.fixture
async def slow_address(users_database: TestDatabase, clock: ManualClock) -> AsyncIterator[str]:
    async with user_service(database_settings(users_database.url), clock=clock, hashing=SLOW) as address:
        yield address


@pytest.fixture
async def slow_sessions(slow_address: str) -> AsyncIterator[SessionServiceAsyncStub]:
    """Sessions of a service whose hashes take a while, and of a user with EMAIL and PASSWORD."""
    async with plain_channel(slow_address, token="") as channel:
        await UserServiceStub(channel).CreateUser(create_user_request(email=EMAIL))
        yield SessionServiceStub(channel)


async def give_up(sessions: SessionServiceAsyncStub, *, after_s: float, password: str = PASSWORD) -> None:
    """Log in and leave, unless it is done by then."""
    request = pb.CreateSessionRequest(email=EMAIL, password=password)
    with contextlib.suppress(aio.AioRpcError):
        await sessions.CreateSession(request, timeout=after_s)


async def test_right_passwords_never_lock_wherever_their_callers_leave(slow_sessions: SessionServiceAsyncStub) -> None:
    # From before the reservation to after the answer.
    for after_ms in range(1, 61, 2):
        await give_up(slow_sessions, after_s=after_ms / 1000)

    assert (await log_in(slow_sessions)).id


async def test_20_callers_who_leave_at_once_do_not_lock(slow_sessions: SessionServiceAsyncStub) -> None:
    await asyncio.gather(*(give_up(slow_sessions, after_s=0.03) for _ in range(20)))

    assert (await log_in(slow_sessions)).id


async def test_a_database_error_after_the_hash_counts_as_nothing(
    sessions: SessionServiceAsyncStub, ada: User, users_database: TestDatabase
) -> None:
    with users_database.locked("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE"):
        refusals = await asyncio.gather(*(refusal_of(log_in(sessions)) for _ in range(2 * FREE)))

    assert {each.reason for each in refusals} == {"DATABASE_UNAVAILABLE"}
    assert (await log_in(sessions)).user_id == ada.id


async def test_30_right_passwords_at_once_at_2_replicas_all_get_in(
    users_database: TestDatabase, clock: ManualClock
) -> None:
    settings = database_settings(users_database.url)
    async with (
        user_service(settings, clock=clock) as one,
        user_service(settings, clock=clock) as other,
        plain_channel(one, token="") as channel_to_one,
        plain_channel(other, token="") as channel_to_other,
    ):
        await UserServiceStub(channel_to_one).CreateUser(create_user_request(email=EMAIL))
        stubs = [SessionServiceStub(channel_to_one), SessionServiceStub(channel_to_other)]

        begun = await asyncio.gather(*(log_in(stubs[number % 2]) for number in range(30)))

    assert len({each.id for each in begun}) == 30


async def test_50_guesses_at_once_at_3_replicas_are_5_tries(
    users_database: TestDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = database_settings(users_database.url, lock_timeout_s=10)
    hashing = PasswordSettings(memory_kib=1024, workers=4)
    async with (
        user_service(settings, clock=clock, hashing=hashing) as one,
        user_service(settings, clock=clock, hashing=hashing) as two,
        user_service(settings, clock=clock, hashing=hashing) as three,
        plain_channel(one, token="") as channel_to_one,
        plain_channel(two, token="") as channel_to_two,
        plain_channel(three, token="") as channel_to_three,
    ):
        await UserServiceStub(channel_to_one).CreateUser(create_user_request(email=EMAIL))
        stubs = [SessionServiceStub(channel) for channel in (channel_to_one, channel_to_two, channel_to_three)]
        runs = Argon2Runs(monkeypatch)

        refusals = await asyncio.gather(*(guess(stubs[number % 3]) for number in range(51)))

    assert Counter(each.reason for each in refusals) == {"INVALID_CREDENTIALS": FREE, "TOO_MANY_ATTEMPTS": 46}
    assert runs.count == FREE


async def test_guesses_whose_callers_leave_count_all_the_same(
    slow_sessions: SessionServiceAsyncStub, users_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise one could have any number of hashes, and look at the outcome by waiting a little longer each time.
    runs = Argon2Runs(monkeypatch)
    for _ in range(40):
        await give_up(slow_sessions, after_s=0.02, password="a wrong password")

    await until(no_attempt_is_under_way(users_database))

    assert runs.count <= FREE
    assert users_database.query("SELECT failures FROM login_attempts") == [(runs.count,)]


async def test_reservations_of_a_dead_replica_expire_after_10_seconds(
    sessions: SessionServiceAsyncStub,
    ada: User,
    users_database: TestDatabase,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "_PATIENCE_S", 0.1)
    await guess(sessions)
    users_database.query(
        "INSERT INTO attempt_reservations"
        " SELECT gen_random_uuid(), account, %s FROM login_attempts, generate_series(1, 4)",
        clock.now() + RESERVED_FOR,
    )

    refusal = await refusal_of(log_in(sessions))
    clock.advance(RESERVED_FOR)

    assert (refusal.reason, refusal.retry_after_s) == ("TOO_MANY_ATTEMPTS", 1)
    assert (await log_in(sessions)).user_id == ada.id


@pytest.mark.parametrize("way", ["the hash fails", "it is excused"])
async def test_an_attempt_of_unknown_outcome_counts_as_nothing(
    users_database: TestDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def fail(*_: object) -> bool:
        raise MemoryError

    async def always() -> bool:
        return True

    database = Database(database_settings(users_database.url), name="test")
    passwords = Passwords(CHEAP)
    attempt = Attempt(account=account_of(EMAIL), password="wrong", password_hash="", is_excused=always)
    if way == "the hash fails":
        monkeypatch.setattr(argon2.PasswordHasher, "verify", fail)
    for _ in range(2 * FREE):
        with contextlib.suppress(MemoryError):
            assert not (await Attempts(database, passwords, clock).check(attempt)).is_correct
    await passwords.close()
    await database.close()

    assert users_database.query("SELECT failures FROM login_attempts") == [(0,)]
    assert users_database.query("SELECT count(*) FROM attempt_reservations") == [(0,)]


async def test_an_attempt_leaves_no_reservation(
    sessions: SessionServiceAsyncStub, ada: User, users_database: TestDatabase
) -> None:
    await guess(sessions)
    await log_in(sessions)

    assert users_database.query("SELECT count(*) FROM attempt_reservations") == [(0,)]


# Every rpc that compares a password with one that is known. By the field: what it tries, and at what.

NEW_PASSWORD = "another horse battery"


class Victim:
    """A user with EMAIL and PASSWORD, and callers who guess the password."""

    def __init__(self, users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub) -> None:
        self.users = users
        self.sessions = sessions
        self.request = create_user_request(email=EMAIL, request_id=new_uuid())
        self.id = ""

    async def begin(self) -> None:
        self.id = (await self.users.CreateUser(self.request)).id

    @property
    def as_owner(self) -> tuple[tuple[str, str], ...]:
        return bearer(token_of(self.id))


async def _by_login(victim: Victim) -> Callable[[str], Awaitable[object]]:
    return lambda password: log_in(victim.sessions, password=password)


async def _by_repeating_the_registration(victim: Victim) -> Callable[[str], Awaitable[object]]:
    def guess(password: str) -> Awaitable[object]:
        request = users_pb.CreateUserRequest()
        request.CopyFrom(victim.request)
        request.password = password
        return victim.users.CreateUser(request)

    return guess


async def _by_changing_the_password(victim: Victim) -> Callable[[str], Awaitable[object]]:
    return lambda password: victim.users.ChangePassword(
        users_pb.ChangePasswordRequest(id=victim.id, current_password=password, new_password=NEW_PASSWORD),
        metadata=victim.as_owner,
    )


async def _by_repeating_a_change_of_password(victim: Victim) -> Callable[[str], Awaitable[object]]:
    # To a password and back again: what is guessed at then is PASSWORD, as everywhere.
    there = users_pb.ChangePasswordRequest(id=victim.id, current_password=PASSWORD, new_password=NEW_PASSWORD)
    back = users_pb.ChangePasswordRequest(
        id=victim.id, current_password=NEW_PASSWORD, new_password=PASSWORD, request_id=new_uuid()
    )
    await victim.users.ChangePassword(there, metadata=victim.as_owner)
    await victim.users.ChangePassword(back, metadata=victim.as_owner)

    def guess(password: str) -> Awaitable[object]:
        request = users_pb.ChangePasswordRequest()
        request.CopyFrom(back)
        request.new_password = password
        return victim.users.ChangePassword(request, metadata=victim.as_owner)

    return guess


async def _by_changing_the_email(victim: Victim) -> Callable[[str], Awaitable[object]]:
    return lambda password: victim.users.UpdateUser(
        users_pb.UpdateUserRequest(id=victim.id, email="eve@example.com", current_password=password),
        metadata=victim.as_owner,
    )


async def _by_deleting_the_user(victim: Victim) -> Callable[[str], Awaitable[object]]:
    return lambda password: victim.users.DeleteUser(
        users_pb.DeleteUserRequest(id=victim.id, current_password=password), metadata=victim.as_owner
    )


GUESSES: dict[str, Callable[[Victim], Awaitable[Callable[[str], Awaitable[object]]]]] = {
    "CreateSession.password": _by_login,
    "CreateUser.password": _by_repeating_the_registration,
    "ChangePassword.current_password": _by_changing_the_password,
    "ChangePassword.new_password": _by_repeating_a_change_of_password,
    "UpdateUser.current_password": _by_changing_the_email,
    "DeleteUser.current_password": _by_deleting_the_user,
}


def test_every_field_of_the_contract_that_holds_a_password_is_guessed_at() -> None:
    found = {
        f"{method.name}.{field.name}"
        for file in (users_pb.DESCRIPTOR, pb.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
        for field in method.input_type.fields
        if "password" in field.name
    }

    assert set(GUESSES) == found


@pytest.mark.parametrize("field", GUESSES)
async def test_wherever_a_password_is_checked_the_account_waits_after_5_wrong_ones(
    users: UserServiceAsyncStub,
    sessions: SessionServiceAsyncStub,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
) -> None:
    victim = Victim(users, sessions)
    await victim.begin()
    guess_by = await GUESSES[field](victim)
    runs = Argon2Runs(monkeypatch, names=("verify",))

    wrong = [await refusal_of(guess_by(f"wrong horse battery {number}")) for number in range(25)]
    right = await refusal_of(guess_by(PASSWORD))
    login = await refusal_of(log_in(sessions))
    clock.advance(timedelta(seconds=1))

    assert {each.reason for each in wrong[:FREE]} <= {"INVALID_CREDENTIALS", "REQUEST_ID_REUSED"}
    assert {each.reason for each in [*wrong[FREE:], right, login]} == {"TOO_MANY_ATTEMPTS"}
    assert runs.count == FREE
    await guess_by(PASSWORD)


async def test_one_change_of_a_password_that_is_sent_twice_at_once_does_not_lock_the_account(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub
) -> None:
    victim = Victim(users, sessions)
    await victim.begin()
    change = users_pb.ChangePasswordRequest(
        id=victim.id, current_password=PASSWORD, new_password=NEW_PASSWORD, request_id=new_uuid()
    )

    answers = await asyncio.gather(*(users.ChangePassword(change, metadata=victim.as_owner) for _ in range(30)))

    assert {each.etag for each in answers} == {"v2"}
    assert (await log_in(sessions, password=NEW_PASSWORD)).user_id == victim.id


# How many may wait for a hash, and for how long.


@pytest.mark.parametrize(
    "hashing",
    [
        PasswordSettings(memory_kib=32 * 1024, workers=1, max_waiting=3),
        PasswordSettings(memory_kib=32 * 1024, workers=1, max_wait_s=0.05),
    ],
    ids=["too many wait", "too long a wait"],
)
async def test_a_login_that_would_wait_too_long_for_a_hash_is_refused_and_uses_no_attempt(
    users_database: TestDatabase, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, hashing: PasswordSettings
) -> None:
    settings = database_settings(users_database.url)
    async with (
        user_service(settings, clock=clock, hashing=hashing) as address,
        plain_channel(address, token="") as channel,
    ):
        user = await UserServiceStub(channel).CreateUser(create_user_request(email=EMAIL))
        sessions = SessionServiceStub(channel)
        runs = Argon2Runs(monkeypatch)

        outcomes = await asyncio.gather(*(log_in(sessions) for _ in range(40)), return_exceptions=True)

        begun = [each for each in outcomes if isinstance(each, pb.Session)]
        refusals = [await refusal_of(raising(each)) for each in outcomes if isinstance(each, aio.AioRpcError)]
        assert begun
        assert len(begun) + len(refusals) == 40
        assert {(each.code, each.reason) for each in refusals} == {(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")}
        assert {each.retry_after_s for each in refusals} == {1}
        assert runs.count == len(begun)
        assert (await log_in(sessions)).user_id == user.id


async def raising(error: Exception) -> None:
    raise error


def no_attempt_is_under_way(database: TestDatabase) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return await asyncio.to_thread(database.query, "SELECT 1 FROM attempt_reservations LIMIT 1") == []

    return ask
