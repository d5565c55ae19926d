"""SessionService: logins, refreshes, and ends of a session."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode
from shop.user.v1 import session_service_pb2 as pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import SIGNER, admins_token, bearer, new_uuid, plain_channel, refusal_of, token_of
from tests.integration.inprocess import database_settings
from tests.integration.replica import serving_process
from tests.integration.user_svc.inprocess import user_service
from tests.integration.user_svc.logins import EMAIL, log_in
from tests.support.requests import PASSWORD, create_user_request
from user_svc.attempts import Attempt, Attempts
from user_svc.settings import PasswordSettings

if TYPE_CHECKING:
    from pathlib import Path

    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock, Refusal
    from tests.integration.databases import TestDatabase
    from user_svc.passwords import Match

NEW_PASSWORD = "another horse battery"
GRACE = timedelta(seconds=10)


async def refresh(sessions: SessionServiceAsyncStub, token: str) -> pb.Session:
    return await sessions.RefreshSession(pb.RefreshSessionRequest(refresh_token=token))


def outcome(refusal: Refusal) -> tuple[StatusCode, str, str]:
    return refusal.code, refusal.domain, refusal.reason


INVALID_CREDENTIALS = (StatusCode.UNAUTHENTICATED, "shop.user.v1", "INVALID_CREDENTIALS")
TOKEN_INVALID = (StatusCode.UNAUTHENTICATED, "shop.system.v1", "TOKEN_INVALID")
TOKEN_EXPIRED = (StatusCode.UNAUTHENTICATED, "shop.system.v1", "TOKEN_EXPIRED")
TOKEN_REUSED = (StatusCode.UNAUTHENTICATED, "shop.user.v1", "TOKEN_REUSED")


async def test_a_login_begins_a_session(sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock) -> None:
    session = await log_in(sessions)

    assert UUID(session.id).version == 7
    assert session.user_id == ada.id
    assert session.access_expires_at.ToDatetime(clock.now().tzinfo) == clock.now() + timedelta(minutes=15)
    assert session.expires_at.ToDatetime(clock.now().tzinfo) == clock.now() + timedelta(days=30)
    assert len(base64.urlsafe_b64decode(session.refresh_token + "=")) == 32


async def test_an_access_token_has_the_claims_of_rfc_9068(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    session = await log_in(sessions)

    claims = jwt.decode(session.access_token, SIGNER.private.public_key(), algorithms=["EdDSA"], audience="shop")

    assert jwt.get_unverified_header(session.access_token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": SIGNER.kid}
    now = int(clock.now().timestamp())
    token_id = UUID(claims.pop("jti"))
    assert token_id.version == 7
    assert claims == {
        "iss": "https://shop.local",
        "aud": "shop",
        "sub": ada.id,
        "sid": session.id,
        "roles": ["USER"],
        "client_id": "shop",
        "iat": now,
        "exp": now + 900,
    }


async def test_an_access_token_gives_access_to_its_users_resources(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, ada: User
) -> None:
    session = await log_in(sessions)

    user = await users.GetUser(users_pb.GetUserRequest(id=ada.id), metadata=bearer(session.access_token))

    assert user.email == EMAIL


async def test_every_refused_login_has_the_same_answer(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    ids = [
        (await users.CreateUser(create_user_request(email=f"{name}@example.com"))).id
        for name in ("wrong", "suspended", "deleted")
    ]
    users_database.query("UPDATE users SET state = 'SUSPENDED' WHERE id = %s", ids[1])
    await users.DeleteUser(users_pb.DeleteUserRequest(id=ids[2]))

    refusals = [
        await refusal_of(log_in(sessions, "wrong@example.com", "wrong horse battery")),
        await refusal_of(log_in(sessions, "suspended@example.com")),
        await refusal_of(log_in(sessions, "deleted@example.com")),
        await refusal_of(log_in(sessions, "nobody@example.com")),
        await refusal_of(log_in(sessions, "no email")),
    ]

    assert {outcome(each) for each in refusals} == {INVALID_CREDENTIALS}
    assert len({each.status.SerializeToString() for each in refusals}) == 1
    assert "email and password do not belong together" in refusals[0].message
    assert users_database.query("SELECT count(*) FROM sessions") == [(0,)]


@pytest.mark.parametrize(
    ("registered", "typed"),
    [("Ada@Example.com", "aDA@eXAMPLE.COM"), ("ada@bücher.example", "ADA@xn--bcher-kva.example")],
)
async def test_an_email_is_known_however_it_is_written(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, registered: str, typed: str
) -> None:
    user = await users.CreateUser(create_user_request(email=registered))

    assert (await log_in(sessions, typed)).user_id == user.id


async def test_a_refresh_gives_the_next_tokens_of_the_same_session(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    first = await log_in(sessions)
    clock.advance(timedelta(minutes=14))

    second = await refresh(sessions, first.refresh_token)

    assert (second.id, second.user_id, second.expires_at) == (first.id, ada.id, first.expires_at)
    assert second.access_expires_at.seconds - first.access_expires_at.seconds == 14 * 60
    assert second.refresh_token != first.refresh_token
    assert second.access_token != first.access_token
    assert (await refresh(sessions, second.refresh_token)).id == first.id


async def test_a_refresh_whose_answer_was_lost_can_be_repeated_for_10_seconds(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    first = await log_in(sessions)
    second = await refresh(sessions, first.refresh_token)
    clock.advance(GRACE)

    again = await refresh(sessions, first.refresh_token)

    assert again.refresh_token == second.refresh_token
    assert (await refresh(sessions, second.refresh_token)).id == first.id


async def test_a_refresh_token_used_again_later_ends_the_session(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    first = await log_in(sessions)
    second = await refresh(sessions, first.refresh_token)
    clock.advance(GRACE + timedelta(microseconds=1))

    reused = await refusal_of(refresh(sessions, first.refresh_token))

    assert outcome(reused) == TOKEN_REUSED
    assert outcome(await refusal_of(refresh(sessions, second.refresh_token))) == TOKEN_INVALID
    assert outcome(await refusal_of(refresh(sessions, first.refresh_token))) == TOKEN_INVALID


async def test_a_refresh_token_whose_successor_was_used_ends_the_session_at_once(
    sessions: SessionServiceAsyncStub, ada: User
) -> None:
    first = await log_in(sessions)
    second = await refresh(sessions, first.refresh_token)
    third = await refresh(sessions, second.refresh_token)

    reused = await refusal_of(refresh(sessions, first.refresh_token))

    assert outcome(reused) == TOKEN_REUSED
    assert outcome(await refusal_of(refresh(sessions, third.refresh_token))) == TOKEN_INVALID


async def test_a_reused_token_ends_no_other_session(sessions: SessionServiceAsyncStub, ada: User) -> None:
    other = await log_in(sessions)
    stolen = await log_in(sessions)
    successor = await refresh(sessions, stolen.refresh_token)
    await refresh(sessions, successor.refresh_token)
    await refusal_of(refresh(sessions, stolen.refresh_token))

    assert (await refresh(sessions, other.refresh_token)).id == other.id


async def test_20_refreshes_of_one_token_at_once_have_one_successor(
    sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    first = await log_in(sessions)

    answers = await asyncio.gather(*(refresh(sessions, first.refresh_token) for _ in range(20)))

    assert len({each.refresh_token for each in answers}) == 1
    assert users_database.query("SELECT count(*), count(used_at) FROM refresh_tokens") == [(2, 1)]


async def test_a_session_is_over_after_30_days_however_often_it_is_refreshed(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    session = await log_in(sessions)
    for _ in range(30):
        clock.advance(timedelta(hours=23, minutes=59))
        session = await refresh(sessions, session.refresh_token)
    clock.advance(timedelta(minutes=30))

    refusal = await refusal_of(refresh(sessions, session.refresh_token))

    assert outcome(refusal) == TOKEN_EXPIRED


@pytest.mark.parametrize("token", ["made up", "x" * 43, "x" * 128, "nul \0", "ünïcode"])
async def test_an_unknown_refresh_token_is_invalid(sessions: SessionServiceAsyncStub, token: str) -> None:
    assert outcome(await refusal_of(refresh(sessions, token))) == TOKEN_INVALID


async def test_a_refused_refresh_asks_for_a_log_in_and_for_nothing_that_the_call_does_not_take(
    sessions: SessionServiceAsyncStub, ada: User, clock: ManualClock
) -> None:
    first = await log_in(sessions)
    await refresh(sessions, first.refresh_token)
    clock.advance(GRACE * 2)
    over = await log_in(sessions)

    refusals = [
        await refusal_of(refresh(sessions, "made up")),
        await refusal_of(refresh(sessions, first.refresh_token)),  # used
        await refusal_of(refresh(sessions, first.refresh_token)),  # its session has ended
    ]
    clock.advance(timedelta(days=31))
    refusals.append(await refusal_of(refresh(sessions, over.refresh_token)))

    assert [each.reason for each in refusals] == ["TOKEN_INVALID", "TOKEN_REUSED", "TOKEN_INVALID", "TOKEN_EXPIRED"]
    for each in refusals:
        assert each.message.endswith("Log in again.")
        assert "bearer" not in each.message


async def test_a_session_of_a_suspended_user_cannot_be_refreshed(
    sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    session = await log_in(sessions)
    users_database.query("UPDATE users SET state = 'SUSPENDED'")

    assert outcome(await refusal_of(refresh(sessions, session.refresh_token))) == TOKEN_INVALID


async def test_a_new_role_comes_with_the_next_access_token(
    sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    session = await log_in(sessions)
    users_database.query("UPDATE users SET roles = '{USER,SUPPORT}'")

    session = await refresh(sessions, session.refresh_token)

    assert unverified_claims(session.access_token)["roles"] == ["USER", "SUPPORT"]


async def test_a_logout_ends_the_session_and_no_other(sessions: SessionServiceAsyncStub, ada: User) -> None:
    left, other = await log_in(sessions), await log_in(sessions)

    answer = await sessions.DeleteSession(pb.DeleteSessionRequest(id=left.id), metadata=bearer(left.access_token))

    assert answer == Empty()
    assert outcome(await refusal_of(refresh(sessions, left.refresh_token))) == TOKEN_INVALID
    assert (await refresh(sessions, other.refresh_token)).id == other.id


async def test_a_logout_of_another_users_session_looks_the_same_and_does_nothing(
    sessions: SessionServiceAsyncStub, ada: User
) -> None:
    session = await log_in(sessions)
    eve = bearer(token_of(new_uuid()))

    of_ada = await sessions.DeleteSession(pb.DeleteSessionRequest(id=session.id), metadata=eve)
    of_nobody = await sessions.DeleteSession(pb.DeleteSessionRequest(id=new_uuid()), metadata=eve)

    assert of_ada == of_nobody == Empty()
    assert (await refresh(sessions, session.refresh_token)).id == session.id


async def test_a_second_logout_succeeds(sessions: SessionServiceAsyncStub, ada: User) -> None:
    session = await log_in(sessions)
    request, metadata = pb.DeleteSessionRequest(id=session.id), bearer(session.access_token)
    await sessions.DeleteSession(request, metadata=metadata)

    assert await sessions.DeleteSession(request, metadata=metadata) == Empty()


async def test_an_admin_can_end_every_session(sessions: SessionServiceAsyncStub, ada: User) -> None:
    session = await log_in(sessions)

    await sessions.DeleteSession(pb.DeleteSessionRequest(id=session.id), metadata=bearer(admins_token()))

    assert outcome(await refusal_of(refresh(sessions, session.refresh_token))) == TOKEN_INVALID


async def test_another_password_ends_every_session_but_the_one_that_changed_it(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, ada: User
) -> None:
    own, other = await log_in(sessions), await log_in(sessions)
    change = users_pb.ChangePasswordRequest(id=ada.id, current_password=PASSWORD, new_password=NEW_PASSWORD)

    await users.ChangePassword(change, metadata=bearer(own.access_token))

    assert outcome(await refusal_of(refresh(sessions, other.refresh_token))) == TOKEN_INVALID
    assert (await refresh(sessions, own.refresh_token)).id == own.id
    assert outcome(await refusal_of(log_in(sessions))) == INVALID_CREDENTIALS
    assert (await log_in(sessions, password=NEW_PASSWORD)).user_id == ada.id


async def test_a_change_of_password_that_fails_ends_no_session(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, ada: User
) -> None:
    own, other = await log_in(sessions), await log_in(sessions)
    change = users_pb.ChangePasswordRequest(id=ada.id, current_password="wrong horse", new_password=NEW_PASSWORD)

    await refusal_of(users.ChangePassword(change, metadata=bearer(own.access_token)))

    assert (await refresh(sessions, other.refresh_token)).id == other.id


async def test_a_deleted_user_has_no_sessions(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, ada: User
) -> None:
    begun = [await log_in(sessions), await log_in(sessions)]

    deletion = users_pb.DeleteUserRequest(id=ada.id, current_password=PASSWORD)
    await users.DeleteUser(deletion, metadata=bearer(begun[0].access_token))

    for session in begun:
        assert outcome(await refusal_of(refresh(sessions, session.refresh_token))) == TOKEN_INVALID


async def test_a_login_makes_a_hash_of_todays_cost(users_database: TestDatabase) -> None:
    settings = database_settings(users_database.url)
    async with user_service(settings) as address, plain_channel(address) as channel:
        user = await UserServiceStub(channel).CreateUser(create_user_request(email=EMAIL))
    dearer = PasswordSettings(memory_kib=16, passes=2)

    async with user_service(settings, hashing=dearer) as address, plain_channel(address) as channel:
        await log_in(SessionServiceStub(channel))
        after = await UserServiceStub(channel).GetUser(users_pb.GetUserRequest(id=user.id))
        await log_in(SessionServiceStub(channel))

    [(password_hash,)] = users_database.query("SELECT password_hash FROM users")
    assert password_hash.startswith("$argon2id$v=19$m=16,t=2,p=1$")
    # The same password is no change of the user.
    assert after == user
    assert users_database.query("SELECT count(*) FROM outbox") == [(1,)]


async def test_logins_at_once_do_not_mind_that_each_makes_a_new_hash(users_database: TestDatabase) -> None:
    settings = database_settings(users_database.url)
    async with user_service(settings) as address, plain_channel(address) as channel:
        await UserServiceStub(channel).CreateUser(create_user_request(email=EMAIL))

    dearer = PasswordSettings(memory_kib=16, passes=2, workers=5)
    async with user_service(settings, hashing=dearer) as address, plain_channel(address) as channel:
        begun = await asyncio.gather(*(log_in(SessionServiceStub(channel)) for _ in range(4)))

    assert len({session.id for session in begun}) == 4


async def test_a_password_that_is_replaced_while_its_hash_is_checked_begins_no_session(
    users_database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The old password, and a session that the change of password did not end: it had not begun.
    settings = database_settings(users_database.url)
    async with user_service(settings) as address, plain_channel(address, token="") as channel:
        users, sessions = UserServiceStub(channel), SessionServiceStub(channel)
        user = await users.CreateUser(create_user_request(email=EMAIL))
        change = users_pb.ChangePasswordRequest(id=user.id, current_password=PASSWORD, new_password=NEW_PASSWORD)
        check = Attempts.check
        checked = 0

        async def check_and_change(self: Attempts, attempt: Attempt) -> Match:
            nonlocal checked
            match = await check(self, attempt)
            checked += 1
            if checked == 1:
                await users.ChangePassword(change, metadata=bearer(token_of(user.id)))
            return match

        monkeypatch.setattr(Attempts, "check", check_and_change)

        refusal = await refusal_of(log_in(sessions))

    assert checked == 2
    assert outcome(refusal) == INVALID_CREDENTIALS
    assert users_database.query("SELECT count(*) FROM sessions") == [(0,)]


async def test_no_secret_is_kept_in_clear_text(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    first = await log_in(sessions)
    second = await refresh(sessions, first.refresh_token)
    change = users_pb.ChangePasswordRequest(
        id=ada.id, current_password=PASSWORD, new_password=NEW_PASSWORD, request_id=new_uuid()
    )
    await users.ChangePassword(change, metadata=bearer(second.access_token))
    await refusal_of(log_in(sessions, password="a wrong password"))

    kept = users_database.everything()

    tokens = [token for each in (first, second) for token in (each.access_token, each.refresh_token)]
    for secret in (PASSWORD, NEW_PASSWORD, "a wrong password", *tokens):
        assert secret not in kept
        assert secret.encode().hex() not in kept  # as bytea is shown
    for refresh_token in (first.refresh_token, second.refresh_token):
        assert base64.urlsafe_b64decode(refresh_token + "=").hex() not in kept
    assert SIGNER.private.private_bytes_raw().hex() not in kept
    assert base64.b64encode(SIGNER.private.private_bytes_raw()).decode() not in kept


async def test_no_secret_is_written_to_the_log(users_database: TestDatabase, tmp_path: Path) -> None:
    async with (
        serving_process("user_svc", tmp_path, DATABASE_URL=users_database.url, LOG_LEVEL="DEBUG") as replica,
        plain_channel(replica.address, token="") as channel,
    ):
        sessions, users = SessionServiceStub(channel), UserServiceStub(channel)
        user = await users.CreateUser(create_user_request(email="canary@example.com", password="canary password"))
        first = await log_in(sessions, "canary@example.com", "canary password")
        second = await refresh(sessions, first.refresh_token)
        await users.GetUser(users_pb.GetUserRequest(id=user.id), metadata=bearer(second.access_token))
        for _ in range(6):
            await refusal_of(log_in(sessions, "canary@example.com", "canary wrong"))
        await refusal_of(refresh(sessions, "canary-made-up"))
        await refusal_of(
            users.GetUser(users_pb.GetUserRequest(id=user.id), metadata=bearer(second.access_token[:-4] + "AAAA"))
        )
        await refresh(sessions, second.refresh_token)
        await refusal_of(refresh(sessions, first.refresh_token))
        replica.process.terminate()
        await replica.exit_code(within_s=5)

    for event in ("session.begun", "session.refreshed", "session.token_reused"):
        assert {(line["user_id"], line["session_id"]) for line in replica.log(event)} == {(user.id, first.id)}
    reasons = {line.get("reason") for line in replica.log("rpc.handled")}
    assert {"INVALID_CREDENTIALS", "TOO_MANY_ATTEMPTS", "TOKEN_INVALID", "TOKEN_REUSED"} <= reasons
    assert user.id in replica.output()
    assert "canary" not in replica.output()
    for each in (first, second):
        assert each.refresh_token not in replica.output()
        for part in each.access_token.split(".")[1:]:
            assert part not in replica.output()


async def test_the_published_keys_check_the_tokens(sessions: SessionServiceAsyncStub, ada: User) -> None:
    session = await log_in(sessions)

    [key] = (await sessions.GetJwks(pb.GetJwksRequest())).keys

    assert (key.kty, key.crv, key.use, key.alg, key.kid) == ("OKP", "Ed25519", "sig", "EdDSA", SIGNER.kid)
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.x + "="))
    assert jwt.decode(session.access_token, public, algorithms=["EdDSA"], audience="shop")["sub"] == ada.id


def unverified_claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})
