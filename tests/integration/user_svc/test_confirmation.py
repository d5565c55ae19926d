"""A stolen token is not enough: a new email and a deletion need the password too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as pb

from chassis.context import Role
from chassis.testing import SIGNER, bearer, new_uuid, refusal_of, token_of
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

NEW_EMAIL = "new@example.com"

CALLS: dict[str, Callable[[str, str], Any]] = {
    "UpdateUser": lambda user_id, password: pb.UpdateUserRequest(
        id=user_id, email=NEW_EMAIL, current_password=password, request_id=new_uuid()
    ),
    "DeleteUser": lambda user_id, password: pb.DeleteUserRequest(
        id=user_id, current_password=password, request_id=new_uuid()
    ),
}
BY_NAME = pytest.mark.parametrize("name", CALLS)


@BY_NAME
async def test_without_the_password_nothing_happens_and_the_field_is_named(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User, name: str
) -> None:
    before = users_database.everything()

    refusal = await refusal_of(getattr(users, name)(CALLS[name](ada.id, ""), metadata=bearer(token_of(ada.id))))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert refusal.fields == ("currentPassword",)
    assert users_database.everything() == before


@BY_NAME
async def test_with_a_wrong_password_nothing_happens(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User, name: str
) -> None:
    before = users_database.query("SELECT users::text FROM users")

    refusal = await refusal_of(
        getattr(users, name)(CALLS[name](ada.id, "wrong horse"), metadata=bearer(token_of(ada.id)))
    )

    assert (refusal.code, refusal.domain) == (StatusCode.UNAUTHENTICATED, "shop.user.v1")
    assert (refusal.reason, refusal.message) == ("INVALID_CREDENTIALS", "The password is not correct.")
    assert users_database.query("SELECT users::text FROM users") == before


@BY_NAME
async def test_with_the_password_it_is_done_once_and_can_be_repeated(
    users: UserServiceAsyncStub, users_database: TestDatabase, ada: User, name: str
) -> None:
    request = CALLS[name](ada.id, PASSWORD)

    answers = await asyncio.gather(
        *(getattr(users, name)(request, metadata=bearer(token_of(ada.id))) for _ in range(10))
    )
    request.current_password = "another password, which is not looked at"
    again = await getattr(users, name)(request, metadata=bearer(token_of(ada.id)))

    assert {each.SerializeToString(deterministic=True) for each in [*answers, again]} == {
        answers[0].SerializeToString(deterministic=True)
    }
    assert users_database.query("SELECT count(*) FROM outbox") == [(2,)]


async def test_a_deletion_ends_the_user_s_sessions(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, users_database: TestDatabase, ada: User
) -> None:
    for _ in range(2):
        await sessions.CreateSession(sessions_pb.CreateSessionRequest(email=ada.email, password=PASSWORD))

    await users.DeleteUser(CALLS["DeleteUser"](ada.id, PASSWORD), metadata=bearer(token_of(ada.id)))

    assert users_database.query("SELECT ended_at IS NOT NULL FROM sessions") == [(True,), (True,)]


@BY_NAME
async def test_an_admin_needs_no_password(users: UserServiceAsyncStub, ada: User, name: str) -> None:
    as_admin = bearer(SIGNER.token(roles=(Role.USER, Role.ADMIN)))

    await getattr(users, name)(CALLS[name](ada.id, ""), metadata=as_admin)

    after = await users.GetUser(pb.GetUserRequest(id=ada.id))
    assert after.email == {"UpdateUser": NEW_EMAIL, "DeleteUser": ""}[name]


@BY_NAME
async def test_another_users_password_confirms_nothing(users: UserServiceAsyncStub, ada: User, name: str) -> None:
    eve = await users.CreateUser(create_user_request())

    refusal = await refusal_of(getattr(users, name)(CALLS[name](ada.id, PASSWORD), metadata=bearer(token_of(eve.id))))

    assert refusal.reason == "USER_NOT_FOUND"


async def test_a_name_and_a_profile_change_without_the_password(users: UserServiceAsyncStub, ada: User) -> None:
    change = pb.UpdateUserRequest(id=ada.id, display_name="Ada King", profile={"a": 1})

    changed = await users.UpdateUser(change, metadata=bearer(token_of(ada.id)))

    assert changed.display_name == "Ada King"


async def test_the_email_that_a_user_has_already_needs_no_password(users: UserServiceAsyncStub, ada: User) -> None:
    as_owner = bearer(token_of(ada.id))
    whole_form = pb.UpdateUserRequest(id=ada.id, email=ada.email, display_name="Ada King")
    other_case = pb.UpdateUserRequest(id=ada.id, email=ada.email.upper())

    changed = await users.UpdateUser(whole_form, metadata=as_owner)
    refusal = await refusal_of(users.UpdateUser(other_case, metadata=as_owner))

    assert (changed.email, changed.display_name) == (ada.email, "Ada King")
    assert refusal.fields == ("currentPassword",)


async def test_a_repeated_deletion_needs_no_password(users: UserServiceAsyncStub, ada: User) -> None:
    as_owner = bearer(token_of(ada.id))
    await users.DeleteUser(pb.DeleteUserRequest(id=ada.id, current_password=PASSWORD), metadata=as_owner)

    again = await users.DeleteUser(pb.DeleteUserRequest(id=ada.id), metadata=as_owner)

    assert again == Empty()
    assert (await users.GetUser(pb.GetUserRequest(id=ada.id))).state == user_pb2.USER_STATE_DELETED


async def test_after_a_new_email_one_logs_in_with_it(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, ada: User
) -> None:
    await users.UpdateUser(CALLS["UpdateUser"](ada.id, PASSWORD), metadata=bearer(token_of(ada.id)))

    session = await sessions.CreateSession(sessions_pb.CreateSessionRequest(email=NEW_EMAIL, password=PASSWORD))

    assert session.user_id == ada.id
