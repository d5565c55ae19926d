"""Of a deleted user only the id and the fact of the deletion are left."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as pb

from chassis.testing import admins_token, bearer, new_uuid, refusal_of, token_of
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase


async def test_a_deleted_user_is_an_id_and_a_state(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request(profile={"a": 1}))

    answer = await users.DeleteUser(pb.DeleteUserRequest(id=user.id))

    assert answer == Empty()
    tombstone = await users.GetUser(pb.GetUserRequest(id=user.id))
    assert (tombstone.id, tombstone.state) == (user.id, user_pb2.USER_STATE_DELETED)
    assert (tombstone.email, tombstone.display_name, list(tombstone.roles)) == ("", "", [])
    assert not tombstone.HasField("profile")
    assert tombstone.etag != user.etag
    batch = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=[user.id]))
    assert list(batch.users) == [tombstone]


async def test_the_email_of_a_deleted_user_is_free(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request(email="ada@example.com"))
    await users.DeleteUser(pb.DeleteUserRequest(id=user.id))

    again = await users.CreateUser(create_user_request(email="ADA@example.com"))

    assert again.id != user.id
    [found] = (await users.ListUsers(pb.ListUsersRequest(email="ada@example.com"))).users
    assert found.id == again.id


async def test_deleting_a_deleted_user_succeeds_and_changes_nothing(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    user = await users.CreateUser(create_user_request())
    await users.DeleteUser(pb.DeleteUserRequest(id=user.id, etag=user.etag))
    before = users_database.everything()

    answer = await users.DeleteUser(pb.DeleteUserRequest(id=user.id, etag=user.etag))

    assert answer == Empty()
    assert users_database.everything() == before


async def test_a_deleted_user_cannot_be_changed(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request())
    await users.DeleteUser(pb.DeleteUserRequest(id=user.id))
    password = pb.ChangePasswordRequest(id=user.id, current_password="x", new_password="another horse battery")

    refusals = [
        await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="Eve"))),
        await refusal_of(users.ChangePassword(password, metadata=bearer(token_of(user.id)))),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.FAILED_PRECONDITION, "shop.user.v1")
        assert (refusal.reason, refusal.metadata) == ("USER_NOT_ACTIVE", {"userId": user.id})


# Every write that takes a request id, about a user who was deleted after it.


def _create(_user: User) -> pb.CreateUserRequest:
    return create_user_request(email="canary@example.com", display_name="canary", request_id=new_uuid())


WRITES: dict[str, Callable[[User], Any]] = {
    "CreateUser": _create,
    "UpdateUser": lambda user: pb.UpdateUserRequest(id=user.id, display_name="canary", request_id=new_uuid()),
    "ChangePassword": lambda user: pb.ChangePasswordRequest(
        id=user.id, current_password=PASSWORD, new_password="another horse battery", request_id=new_uuid()
    ),
    "DeleteUser": lambda user: pb.DeleteUserRequest(id=user.id, request_id=new_uuid()),
}


def test_every_write_with_a_request_id_is_repeated() -> None:
    methods = pb.DESCRIPTOR.services_by_name["UserService"].methods

    assert set(WRITES) == {each.name for each in methods if "request_id" in each.input_type.fields_by_name}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("later", [timedelta(0), timedelta(hours=24)], ids=["at once", "24 hours later"])
async def test_a_write_that_is_repeated_after_its_user_was_deleted_is_not_done_again(
    users: UserServiceAsyncStub, users_database: TestDatabase, clock: ManualClock, name: str, later: timedelta
) -> None:
    user = await users.CreateUser(create_user_request())
    request = WRITES[name](user)
    as_caller = bearer(token_of(user.id) if name == "ChangePassword" else admins_token())
    answer = await getattr(users, name)(request, metadata=as_caller)
    await users.DeleteUser(pb.DeleteUserRequest(id=user.id if name != "CreateUser" else answer.id))
    before = users_database.everything()
    clock.advance(later)

    again = getattr(users, name)(request, metadata=as_caller)

    if name == "DeleteUser":
        assert await again == Empty()
    else:
        refusal = await refusal_of(again)
        assert (refusal.code, refusal.domain) == (StatusCode.ALREADY_EXISTS, "shop.system.v1")
        assert (refusal.reason, refusal.metadata) == ("ANSWER_ERASED", {"requestId": request.request_id})
    assert users_database.everything() == before


async def test_an_erased_request_cannot_be_recovered_by_guessing_its_content(users: UserServiceAsyncStub) -> None:
    request = create_user_request(request_id=new_uuid())
    as_caller = bearer(admins_token())
    created = await users.CreateUser(request, metadata=as_caller)
    await users.DeleteUser(pb.DeleteUserRequest(id=created.id))
    other = create_user_request(request_id=request.request_id)

    refusals = [await refusal_of(users.CreateUser(each, metadata=as_caller)) for each in (request, other)]

    assert len({each.status.SerializeToString() for each in refusals}) == 1
    # So it must be true of both.
    assert refusals[1].message.startswith("This request, or another one with its request id, was done")
