"""A password that is replaced during its check opens nothing, and two changes with one key are one change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import bearer, new_uuid, plain_channel, refusal_of, token_of
from tests.integration.inprocess import database_settings
from tests.integration.user_svc.inprocess import user_service
from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

NEW_PASSWORD = "another long password"

CALLS: dict[str, Callable[[str], Any]] = {
    "UpdateUser": lambda user_id: pb.UpdateUserRequest(id=user_id, email="new@example.com", current_password=PASSWORD),
    "DeleteUser": lambda user_id: pb.DeleteUserRequest(id=user_id, current_password=PASSWORD),
    "ChangePassword": lambda user_id: pb.ChangePasswordRequest(
        id=user_id, current_password=PASSWORD, new_password=NEW_PASSWORD
    ),
}


@pytest.fixture
async def users(users_database: TestDatabase, clock: ManualClock) -> AsyncIterator[UserServiceAsyncStub]:
    """The user service, whose statements wait longer for a row than a busy machine takes."""
    settings = database_settings(users_database.url)
    async with user_service(settings, clock=clock) as address, plain_channel(address) as channel:
        yield UserServiceStub(channel)


@asynccontextmanager
async def changing(database: TestDatabase, statement: str, *, until_waiting: int) -> AsyncIterator[None]:
    """Hold a transaction with the statement until this number of others wait for it, after the block."""
    with database.connect() as session, session.transaction():
        session.execute(statement.encode())
        yield
        await database.until_waiting(until_waiting)


@pytest.mark.parametrize("name", CALLS)
async def test_a_password_that_is_replaced_during_its_check_opens_nothing(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User, name: str
) -> None:
    events = users_database.query("SELECT type FROM outbox")
    replace = "UPDATE users SET password_hash = 'another', version = version + 1"

    async with changing(users_database, replace, until_waiting=1):
        call = getattr(users, name)(CALLS[name](ada.id), metadata=bearer(token_of(ada.id)))

    assert (await refusal_of(call)).reason == "INVALID_CREDENTIALS"
    assert users_database.query("SELECT email, password_hash, state FROM users") == [(ada.email, "another", "ACTIVE")]
    assert users_database.query("SELECT type FROM outbox") == events


@pytest.mark.parametrize("change", ["password_hash = 'another'", "state = 'SUSPENDED'"])
async def test_a_login_that_is_checked_while_its_user_changes_begins_no_session(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User, change: str
) -> None:
    settings = database_settings(users_database.url)
    async with user_service(settings) as address, plain_channel(address) as channel:
        async with changing(users_database, f"UPDATE users SET {change}, version = version + 1", until_waiting=1):
            call = SessionServiceStub(channel).CreateSession(
                sessions_pb.CreateSessionRequest(email=ada.email, password=PASSWORD)
            )

        assert (await refusal_of(call)).reason == "INVALID_CREDENTIALS"
    assert users_database.query("SELECT count(*) FROM sessions") == [(0,)]


async def test_one_key_with_two_passwords_at_once_is_refused_as_reused(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    key = new_uuid()
    requests = [
        pb.ChangePasswordRequest(id=ada.id, current_password=PASSWORD, new_password=new, request_id=key)
        for new in (NEW_PASSWORD, f"{NEW_PASSWORD} too")
    ]

    async with changing(users_database, "SELECT 1 FROM users FOR UPDATE", until_waiting=2):
        calls = [users.ChangePassword(request, metadata=bearer(token_of(ada.id))) for request in requests]

    answers = await asyncio.gather(*calls, return_exceptions=True)
    [refused] = [call for call, answer in zip(calls, answers, strict=True) if isinstance(answer, BaseException)]
    assert (await refusal_of(refused)).reason == "REQUEST_ID_REUSED"
    assert users_database.query("SELECT type FROM outbox") == [("user.created",), ("user.updated",)]


async def test_an_email_that_is_replaced_during_its_check_is_not_brought_back_without_the_password(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    replace = "UPDATE users SET email = 'n@e.w', email_key = 'n@e.w', version = version + 1"

    async with changing(users_database, replace, until_waiting=1):
        call = users.UpdateUser(pb.UpdateUserRequest(id=ada.id, email=ada.email), metadata=bearer(token_of(ada.id)))

    assert (await refusal_of(call)).fields == ("currentPassword",)
    assert users_database.query("SELECT email FROM users") == [("n@e.w",)]


async def test_an_empty_update_of_a_deleted_user_is_refused(users: UserServiceAsyncStub, ada: User) -> None:
    await users.DeleteUser(pb.DeleteUserRequest(id=ada.id))

    refusal = await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=ada.id)))

    assert refusal.reason == "USER_NOT_ACTIVE"
