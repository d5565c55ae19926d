"""Writes of users that are sent twice take effect once, and both callers get the same answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shop.user.v1 import user_service_pb2 as users_pb

from chassis.testing import bearer, new_uuid, refusal_of, token_of
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

NEW_PASSWORD = "another horse battery"


def encoded(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


async def test_repeated_writes_of_a_user_get_their_first_answers(users: UserServiceAsyncStub) -> None:
    create = create_user_request(profile={"a": [1, 2.5, {}], "z": None}, request_id=new_uuid())
    created = await users.CreateUser(create)
    update = users_pb.UpdateUserRequest(id=created.id, display_name="B", etag=created.etag, request_id=new_uuid())
    updated = await users.UpdateUser(update)
    as_user = bearer(token_of(created.id))
    change = users_pb.ChangePasswordRequest(
        id=created.id, current_password=create.password, new_password=NEW_PASSWORD, request_id=new_uuid()
    )
    changed = await users.ChangePassword(change, metadata=as_user)

    assert encoded(await users.CreateUser(create)) == encoded(created)
    assert encoded(await users.UpdateUser(update)) == encoded(updated)
    assert encoded(await users.ChangePassword(change, metadata=as_user)) == encoded(changed)
    assert await users.GetUser(users_pb.GetUserRequest(id=created.id)) == changed


async def test_a_repeated_deletion_succeeds(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    user = await users.CreateUser(create_user_request())
    delete = users_pb.DeleteUserRequest(id=user.id, etag=user.etag, request_id=new_uuid())
    await users.DeleteUser(delete)

    await users.DeleteUser(delete)

    assert users_database.query("SELECT count(*) FROM outbox WHERE type = 'user.deleted'") == [(1,)]


async def test_a_request_that_differs_in_the_password_only_is_another_request(users: UserServiceAsyncStub) -> None:
    create = create_user_request(request_id=new_uuid())
    user = await users.CreateUser(create)
    as_user = bearer(token_of(user.id))
    change = users_pb.ChangePasswordRequest(
        id=user.id, current_password=create.password, new_password=NEW_PASSWORD, request_id=new_uuid()
    )
    await users.ChangePassword(change, metadata=as_user)
    create.password = "a different password"
    change.new_password = "a different password"

    refusals = [
        await refusal_of(users.CreateUser(create)),
        await refusal_of(users.ChangePassword(change, metadata=as_user)),
    ]

    assert [each.reason for each in refusals] == ["REQUEST_ID_REUSED"] * 2
    assert [each.metadata["requestId"] for each in refusals] == [create.request_id, change.request_id]


async def test_a_write_that_failed_leaves_its_request_id_unused(users: UserServiceAsyncStub) -> None:
    await users.CreateUser(create_user_request(email="ada@example.com"))
    request_id = new_uuid()
    refusal = await refusal_of(users.CreateUser(create_user_request(email="ada@example.com", request_id=request_id)))
    assert refusal.reason == "EMAIL_TAKEN"

    created = await users.CreateUser(create_user_request(email="bob@example.com", request_id=request_id))

    assert created.email == "bob@example.com"


async def test_40_callers_with_one_request_id_create_one_user(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    request = create_user_request(request_id=new_uuid())

    answers = await asyncio.gather(*(users.CreateUser(request) for _ in range(40)))

    assert len({encoded(answer) for answer in answers}) == 1
    for table in ("users", "outbox", "idempotency_keys"):
        assert users_database.query(f"SELECT count(*) FROM {table}") == [(1,)]


async def test_20_callers_with_one_request_id_change_the_password_once(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    create = create_user_request()
    user = await users.CreateUser(create)
    as_user = bearer(token_of(user.id))
    change = users_pb.ChangePasswordRequest(
        id=user.id, current_password=create.password, new_password=NEW_PASSWORD, request_id=new_uuid()
    )

    answers = await asyncio.gather(*(users.ChangePassword(change, metadata=as_user) for _ in range(20)))

    assert len({encoded(answer) for answer in answers}) == 1
    assert users_database.query("SELECT max(version) FROM users") == [(2,)]
