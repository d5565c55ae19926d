"""Guessing passwords: what it costs us, how far it gets, and that its victim can still log in."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import argon2
import pytest
from grpc import StatusCode
from shop.user.v1 import session_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import PASSWORD, create_user_request, plain_channel, refusal_of
from tests.integration.inprocess import database_settings, user_service
from user_svc.settings import PasswordSettings

if TYPE_CHECKING:
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock, Refusal
    from tests.integration.conftest import TestDatabase

EMAIL = "ada@example.com"
NOBODY = "nobody@example.com"
FREE = 5
LONGEST_WAIT = timedelta(minutes=5)


class Argon2Runs:
    """Counts what argon2 is asked, by whomever.

    Attributes:
        count: of hashes made and checked.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for name in ("hash", "verify"):
            patch.setattr(argon2.PasswordHasher, name, self._counted(getattr(argon2.PasswordHasher, name)))

    def _counted(self, method: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return method(*args, **kwargs)

        return counted


@pytest.fixture
async def ada(users: UserServiceAsyncStub) -> str:
    return (await users.CreateUser(create_user_request(email=EMAIL))).id


@pytest.fixture
def argon2_runs(ada: str, monkeypatch: pytest.MonkeyPatch) -> Argon2Runs:
    """What argon2 is asked from now on: Ada is there already."""
    return Argon2Runs(monkeypatch)


async def log_in(sessions: SessionServiceAsyncStub, email: str = EMAIL, password: str = PASSWORD) -> pb.Session:
    return await sessions.CreateSession(pb.CreateSessionRequest(email=email, password=password))


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
    sessions: SessionServiceAsyncStub, ada: str, clock: ManualClock
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
    sessions: SessionServiceAsyncStub, ada: str, clock: ManualClock
) -> None:
    for _ in range(FREE):
        await guess(sessions)

    refusal = await refusal_of(log_in(sessions))
    clock.advance(timedelta(seconds=1))

    assert refusal.reason == "TOO_MANY_ATTEMPTS"
    assert (await log_in(sessions)).user_id == ada


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


async def test_a_login_forgets_the_failures_before_it(sessions: SessionServiceAsyncStub, ada: str) -> None:
    for _ in range(3):
        for _ in range(FREE - 1):
            assert (await guess(sessions)).reason == "INVALID_CREDENTIALS"

        assert (await log_in(sessions)).user_id == ada


async def test_failures_are_forgotten_after_a_day(
    sessions: SessionServiceAsyncStub, ada: str, clock: ManualClock
) -> None:
    for _ in range(FREE):
        await guess(sessions)
    clock.advance(timedelta(days=1, seconds=1))

    assert [(await guess(sessions)).reason for _ in range(FREE)] == ["INVALID_CREDENTIALS"] * FREE


async def test_guesses_at_one_account_do_not_touch_another(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, ada: str
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


async def test_guesses_tell_nothing_about_whether_there_is_an_account(
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


async def test_a_clock_that_is_behind_locks_nobody_out_of_the_free_tries(
    sessions: SessionServiceAsyncStub, ada: str, clock: ManualClock
) -> None:
    # Another replica's, or this one's: two calls read the clock in one order and reach the database in the other.
    await guess(sessions)
    clock.advance(timedelta(milliseconds=-5))

    assert (await log_in(sessions)).user_id == ada


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
