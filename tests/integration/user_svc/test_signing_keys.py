"""The signing keys of tokens: their creation, rotation, and publication to verifiers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.fernet import Fernet
from grpc import StatusCode
from pydantic import SecretStr, ValidationError
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from structlog.testing import capture_logs

from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.auth.remote_keys import RemoteKeyRing
from chassis.client import connect
from chassis.clock import SystemClock
from chassis.context import Call, set_current_call
from chassis.database import Database
from chassis.errors import DatabaseUnavailable, KeysUnavailable, StartupError
from chassis.server.status import code_of
from chassis.testing import LOOPBACK, SIGNER, ManualClock, bearer, new_uuid, plain_channel, refusal_of, token_of, until
from tests.integration.databases import fresh_database
from tests.integration.inprocess import database_settings
from tests.integration.replica import run, serving_process
from tests.integration.user_svc.inprocess import KEY_SETTINGS, user_service
from tests.support.requests import PASSWORD, create_user_request
from user_svc.keys import KeySettings, SigningKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from grpc import aio

    from chassis.clock import Clock
    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase

LEAD = timedelta(seconds=60)
LIFETIME = timedelta(minutes=15)
OTHER_SECRET = SecretStr(Fernet.generate_key().decode())


@pytest.fixture
def keyless(users_copy: TestDatabase) -> TestDatabase:
    """A database without a key."""
    users_copy.query("DELETE FROM signing_keys")
    return users_copy


@contextlib.asynccontextmanager
async def signing_keys(
    database: TestDatabase, clock: Clock, *, settings: KeySettings = KEY_SETTINGS
) -> AsyncIterator[SigningKeys]:
    """Have the keys as one replica, or one command, has them."""
    lanes = Database(database_settings(database.url, pool_size=4), name="test")
    try:
        yield SigningKeys(lanes, settings, clock, token_lifetime_s=LIFETIME.total_seconds())
    finally:
        await lanes.close()


def ring_of(channel: aio.Channel) -> RemoteKeyRing:
    """Return the keys as another service has them."""
    return RemoteKeyRing(SessionServiceStub(channel).GetJwks, sessions_pb.GetJwksRequest())


async def published(keys: SigningKeys) -> list[str]:
    return [key.kid for key in await keys.published()]


async def test_5_replicas_that_start_together_make_one_key(keyless: TestDatabase) -> None:
    async with contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(signing_keys(keyless, SystemClock())) for _ in range(5)]

        current = await asyncio.gather(*(replica.current() for replica in replicas))

    assert len({key.kid for key in current}) == 1
    assert keyless.query("SELECT count(*) FROM signing_keys") == [(1,)]


async def test_the_first_request_for_the_keys_creates_one(keyless: TestDatabase) -> None:
    # Before any login: a verifier that got an empty list would wait for its next fetch.
    async with (
        user_service(database_settings(keyless.url)) as address,
        plain_channel(address, token="") as channel,
    ):
        jwks = await SessionServiceStub(channel).GetJwks(sessions_pb.GetJwksRequest())

    assert len(jwks.keys) == 1


async def test_a_new_key_is_published_before_it_signs(keyless: TestDatabase, clock: ManualClock) -> None:
    async with signing_keys(keyless, clock) as keys:
        old = await keys.current()
        new = await keys.rotate()
        await until_known(keys, new.kid)

        assert await published(keys) == [new.kid, old.kid]
        assert (await keys.current()).kid == old.kid
        clock.advance(LEAD - timedelta(microseconds=1))
        assert (await keys.current()).kid == old.kid
        clock.advance(timedelta(microseconds=1))
        assert (await keys.current()).kid == new.kid
        assert await published(keys) == [new.kid, old.kid]


async def test_an_old_key_is_published_until_its_last_token_has_expired(
    keyless: TestDatabase, clock: ManualClock
) -> None:
    async with signing_keys(keyless, clock) as keys:
        old = await keys.current()
        new = await keys.rotate()
        await until_known(keys, new.kid)

        clock.advance(LEAD + LIFETIME + timedelta(seconds=60))
        assert await published(keys) == [new.kid, old.kid]
        assert await keys.key(old.kid)
        clock.advance(timedelta(seconds=60))
        assert await published(keys) == [new.kid]
        assert await keys.key(old.kid) is None


async def test_a_rotation_removes_what_no_token_needs(keyless: TestDatabase, clock: ManualClock) -> None:
    async with signing_keys(keyless, clock) as keys:
        await keys.current()
        second = await keys.rotate()
        clock.advance(timedelta(days=1))

        third = await keys.rotate()

    kept = {kid for (kid,) in keyless.query("SELECT kid FROM signing_keys")}
    assert kept == {second.kid, third.kid}


async def test_a_key_that_signed_for_years_signs_until_the_next_one_does(
    keyless: TestDatabase, clock: ManualClock
) -> None:
    async with signing_keys(keyless, clock) as keys:
        old = await keys.current()
        clock.advance(timedelta(days=3 * 365))

        new = await keys.rotate()
        await until_known(keys, new.kid)

        assert (await keys.current()).kid == old.kid
        assert await published(keys) == [new.kid, old.kid]


async def test_a_rotation_before_the_first_start_does_not_sign_too_early(
    keyless: TestDatabase, clock: ManualClock
) -> None:
    async with signing_keys(keyless, clock) as command, signing_keys(keyless, clock) as replica:
        coming = await command.rotate()

        current = await replica.current()

        assert current.kid != coming.kid
        assert current.active_from == clock.now()
        assert await published(replica) == [coming.kid, current.kid]


async def test_rotations_at_once_lose_no_key(keyless: TestDatabase, clock: ManualClock) -> None:
    async with signing_keys(keyless, clock) as one, signing_keys(keyless, clock) as other:
        first = await one.current()

        made = await asyncio.gather(*(keys.rotate() for keys in (one, other) * 3))

        await until_known(other, first.kid, *(key.kid for key in made))


async def test_replicas_agree_within_a_second(keyless: TestDatabase, clock: ManualClock) -> None:
    async with signing_keys(keyless, clock) as one, signing_keys(keyless, clock) as other:
        await one.current()
        await other.current()
        new = await one.rotate()
        clock.advance(LEAD)
        await asyncio.gather(until_known(one, new.kid), until_known(other, new.kid))

        assert (await one.current()).kid == (await other.current()).kid == new.kid
        assert await other.key(new.kid)


async def test_known_keys_stay_known_while_the_database_is_away(
    postgres: PostgresServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_svc.keys._FRESH_S", 0)
    async with contextlib.AsyncExitStack() as rest:
        with fresh_database(postgres, "user_svc") as database:
            keys = await rest.enter_async_context(signing_keys(database, clock))
            stranger = await rest.enter_async_context(signing_keys(database, clock))
            known = await keys.current()

        assert (await keys.current()).kid == known.kid
        assert await keys.key(known.kid)
        with pytest.raises(DatabaseUnavailable):
            await stranger.current()


async def test_a_key_sealed_with_another_secret_is_not_read_and_no_key_is_added(
    keyless: TestDatabase, clock: ManualClock
) -> None:
    settings = KeySettings(secret=OTHER_SECRET)
    async with signing_keys(keyless, clock) as keys, signing_keys(keyless, clock, settings=settings) as wrong:
        kid = (await keys.current()).kid

        for attempt in (wrong.current, wrong.rotate, wrong.published):
            with pytest.raises(StartupError, match="KEYS_SECRET"):
                await attempt()

    assert keyless.query("SELECT kid FROM signing_keys") == [(kid,)]


@pytest.mark.parametrize(
    "secret",
    ["", "canary", "x" * 44, "ü" * 44, Fernet.generate_key().decode()[:-4]],
    ids=["none", "short", "letters", "beyond ASCII", "cut off"],
)
def test_a_secret_that_seals_nothing_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValidationError) as refused:
        KeySettings(secret=SecretStr(secret))

    [mistake] = refused.value.errors(include_input=False, include_url=False)
    assert mistake["loc"] == ("secret",)
    assert not secret or secret not in mistake["msg"]


def test_a_wrong_secret_is_one_clear_line_and_no_replica(users_copy: TestDatabase) -> None:
    for command in ("serve", "keys list", "keys rotate"):
        ended = run(
            "user_svc", command, DATABASE_URL=users_copy.url, KEYS_SECRET=OTHER_SECRET.get_secret_value(), PORT="1"
        )

        assert ended.returncode == 1
        assert ended.stderr == "KEYS_SECRET is not the secret that the signing keys are sealed with.\n"


def test_a_malformed_secret_is_one_clear_line() -> None:
    ended = run("user_svc", "keys list", DATABASE_URL=f"postgresql://{LOOPBACK}/none", KEYS_SECRET="canary")

    assert ended.returncode == 1
    assert ended.stderr.startswith("KEYS_SECRET: ")
    assert ended.stderr.count("\n") == 1
    assert "canary" not in ended.stderr


def test_the_commands_rotate_and_list_the_keys(keyless: TestDatabase) -> None:
    first = run("user_svc", "keys list", DATABASE_URL=keyless.url)
    rotated = run("user_svc", "keys rotate", DATABASE_URL=keyless.url)
    listed = run("user_svc", "keys list", DATABASE_URL=keyless.url)

    rows = keyless.query("SELECT kid, to_char(active_from, 'YYYY-MM-DD HH24:MI:SS') FROM signing_keys ORDER BY 2")
    (old, old_from), (new, new_from) = rows
    assert first.stdout == f"{old}  from {old_from} UTC  signs now\n"
    assert rotated.stdout == f"{new} signs from {new_from} UTC\n"
    assert listed.stdout == f"{new}  from {new_from} UTC\n{old}  from {old_from} UTC  signs now\n"
    assert first.stderr == rotated.stderr == listed.stderr == ""


async def test_a_replica_makes_the_first_key_when_it_starts(keyless: TestDatabase, tmp_path: Path) -> None:
    async with serving_process("user_svc", tmp_path, DATABASE_URL=keyless.url):
        assert keyless.query("SELECT count(*) FROM signing_keys") == [(1,)]


# Verifiers: they fetch the keys and cache them.


def asked(logged: Sequence[Any]) -> int:
    """Return how often the keys were asked for."""
    return sum(str(entry.get("method", "")).endswith("/GetJwks") for entry in logged)


async def test_known_keys_stay_known_while_the_user_service_is_away(users_database: TestDatabase) -> None:
    async with contextlib.AsyncExitStack() as rest:
        async with user_service(database_settings(users_database.url)) as address:
            ring = ring_of(await rest.enter_async_context(connect(address)))
            assert await ring.key(SIGNER.kid)

        tokens = AccessTokens(TokenSettings(), ring)
        user_id = new_uuid()
        assert (await tokens.caller(token_of(user_id))).subject == user_id


async def test_unknown_keys_are_asked_for_once_a_second(users_address: str) -> None:
    async with connect(users_address) as channel:
        ring = ring_of(channel)
        with capture_logs() as logged:
            began = time.monotonic()
            while time.monotonic() - began < 2.5:
                assert await asyncio.gather(*(ring.key(new_uuid()) for _ in range(20))) == [None] * 20
                await asyncio.sleep(0.01)  # the interval of the lookups

    assert 2 <= asked(logged) <= 3


async def test_100_callers_at_the_start_ask_once(users_address: str) -> None:
    async with connect(users_address) as channel:
        ring = ring_of(channel)
        with capture_logs() as logged:
            found = await asyncio.gather(*(ring.key(SIGNER.kid) for _ in range(100)))

    assert all(found)
    assert asked(logged) == 1


async def test_until_the_keys_were_fetched_a_token_is_refused_as_unavailable() -> None:
    async with connect(f"{LOOPBACK}:1") as channel:
        tokens = AccessTokens(TokenSettings(), ring_of(channel))

        with pytest.raises(KeysUnavailable) as refused:
            await tokens.caller(token_of(new_uuid()))

    assert code_of(refused.value) is StatusCode.UNAVAILABLE
    assert refused.value.retry_after_s == 1


async def test_an_impatient_caller_does_not_spoil_the_keys_for_the_others(users_address: str) -> None:
    async with connect(users_address) as channel:
        ring = ring_of(channel)

        async def ask_in_a_hurry() -> None:
            set_current_call(Call(method="/a.B/C", deadline=time.monotonic()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ring.key(SIGNER.kid), 0.001)

        await asyncio.create_task(ask_in_a_hurry())

        assert await ring.key(SIGNER.kid)


@dataclass
class Load:
    """A caller who logs in and calls every replica and another service that verifies tokens, again and again.

    Attributes:
        rejected: why good tokens were refused.
        kids: the keys that signed.
        calls: made with a good token.
    """

    rejected: list[str] = field(default_factory=list)
    kids: set[str] = field(default_factory=set)
    calls: int = 0

    async def run(self, users: Sequence[aio.Channel], verifier: AccessTokens) -> None:
        user = await UserServiceStub(users[0]).CreateUser(create_user_request())
        login = sessions_pb.CreateSessionRequest(email=user.email, password=PASSWORD)
        while True:
            for channel in users:
                session = await SessionServiceStub(channel).CreateSession(login)
                self.kids.add(jwt.get_unverified_header(session.access_token)["kid"])
                metadata = bearer(session.access_token)
                get = users_pb.GetUserRequest(id=user.id)
                calls: list[Any] = [UserServiceStub(each).GetUser(get, metadata=metadata) for each in users]
                calls.append(verifier.caller(session.access_token))
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    self.calls += 1
                    if isinstance(outcome, BaseException):
                        self.rejected.append(str(outcome))


async def test_5_rotations_under_load_reject_no_good_token(users_copy: TestDatabase) -> None:
    # Twice the second for which replicas remember the keys; 60 s in production, where verifiers remember them for 30.
    lead_s = 2.0
    signing = KeySettings(secret=KEY_SETTINGS.secret, publish_lead_s=lead_s)
    settings = database_settings(users_copy.url)
    load = Load()
    async with (
        user_service(settings, signing=signing) as one,
        user_service(settings, signing=signing) as other,
        connect(f"ipv4:{one},{other}") as to_either,
        plain_channel(one, token="") as to_one,
        plain_channel(other, token="") as to_other,
        signing_keys(users_copy, SystemClock(), settings=signing) as command,
    ):
        running = asyncio.create_task(load.run([to_one, to_other], AccessTokens(TokenSettings(), ring_of(to_either))))
        made = set()

        async def have_all_signed() -> bool:
            return made <= load.kids and load.calls > 20 * len(made)

        for _ in range(5):
            made.add((await command.rotate()).kid)
            await until(have_all_signed)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        refusal = await refusal_of(
            UserServiceStub(to_one).GetUser(users_pb.GetUserRequest(id=new_uuid()), metadata=bearer("garbage"))
        )

    assert load.rejected == []
    assert made < load.kids
    assert refusal.reason == "TOKEN_INVALID"


async def until_known(keys: SigningKeys, *kids: str) -> None:
    """Return once the keys are known: what was read is remembered for a second."""

    async def is_known() -> bool:
        return set(kids) <= set(await published(keys))

    await until(is_known)


def test_the_settings_do_not_show_the_secret() -> None:
    secret = KEY_SETTINGS.secret.get_secret_value()

    assert secret not in repr(KEY_SETTINGS)
    assert secret not in json.dumps(KEY_SETTINGS.model_dump(mode="json"))


def test_a_secret_in_standard_base64_seals_too() -> None:
    raw = bytes(range(250, 256)) * 5 + b"\xfb\xff"
    standard, for_urls = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()

    settings = KeySettings(secret=SecretStr(standard))

    assert {"+", "/"} <= set(standard)
    assert settings.secret.get_secret_value() == for_urls
