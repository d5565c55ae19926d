"""UserService, rpc by rpc: what it answers and why it refuses."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct, Value
from grpc import StatusCode
from shop.system.v1 import access_pb2
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as pb

from chassis.testing import bearer, new_uuid, refusal_of, token_of
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

NEW_PASSWORD = "another horse battery"


async def test_a_new_user_is_active_and_is_shown_as_typed(users: UserServiceAsyncStub, clock: ManualClock) -> None:
    profile = {"theme": "dark", "tags": ["a", 1, 2.5, True, None], "deep": {"er": {}}}
    request = create_user_request(email="Ada.Lovelace@Example.COM", display_name="Ada ✨", profile=profile)

    user = await users.CreateUser(request)

    assert (user.email, user.display_name) == ("Ada.Lovelace@Example.COM", "Ada ✨")
    assert (user.state, list(user.roles)) == (user_pb2.USER_STATE_ACTIVE, [access_pb2.ROLE_USER])
    assert MessageToDict(user.profile) == profile
    assert user.created_at == user.updated_at
    assert user.created_at.ToMicroseconds() == round(clock.now().timestamp() * 1_000_000)
    assert user.etag


async def test_a_created_user_can_be_read(users: UserServiceAsyncStub) -> None:
    created = await users.CreateUser(create_user_request(profile={"a": 1}))

    found = await users.GetUser(pb.GetUserRequest(id=created.id))

    assert found == created


async def test_an_unknown_user_is_not_found(users: UserServiceAsyncStub) -> None:
    nobody = new_uuid()

    refusals = [
        await refusal_of(users.GetUser(pb.GetUserRequest(id=nobody))),
        await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=nobody, display_name="Eve"))),
        await refusal_of(users.ChangePassword(change_password(nobody), metadata=bearer(token_of(nobody)))),
        await refusal_of(users.DeleteUser(pb.DeleteUserRequest(id=nobody))),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.NOT_FOUND, "shop.user.v1")
        assert (refusal.reason, refusal.metadata) == ("USER_NOT_FOUND", {"userId": nobody})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada@example.com", "ADA@Example.Com"),
        ("straße@example.com", "STRASSE@example.com"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("ada@BÜCHER.example", "ada@bücher.example"),
        ("ada@example.com", "ada@\N{FULLWIDTH LATIN SMALL LETTER E}xample.com"),
    ],
)
async def test_an_email_belongs_to_one_user_however_it_is_written(
    users: UserServiceAsyncStub, first: str, second: str
) -> None:
    await users.CreateUser(create_user_request(email=first))

    refusal = await refusal_of(users.CreateUser(create_user_request(email=second)))

    assert (refusal.code, refusal.domain) == (StatusCode.ALREADY_EXISTS, "shop.user.v1")
    assert (refusal.reason, refusal.fields) == ("EMAIL_TAKEN", ("email",))
    assert second not in str(refusal.status)


async def test_an_update_cannot_take_the_email_of_another_user(users: UserServiceAsyncStub) -> None:
    await users.CreateUser(create_user_request(email="ada@bücher.example"))
    other = await users.CreateUser(create_user_request())

    refusal = await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=other.id, email="ADA@xn--bcher-kva.example")))

    assert (refusal.code, refusal.reason, refusal.fields) == (StatusCode.ALREADY_EXISTS, "EMAIL_TAKEN", ("email",))
    assert await users.GetUser(pb.GetUserRequest(id=other.id)) == other


async def test_users_can_write_their_own_email_differently(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request(email="ada@example.com"))

    changed = await users.UpdateUser(pb.UpdateUserRequest(id=user.id, email="Ada@Example.com"))

    assert changed.email == "Ada@Example.com"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": ""}, "email"),
        ({"email": "no at sign"}, "email"),
        ({"email": "@example.com"}, "email"),
        ({"email": "ada@localhost"}, "email"),
        ({"email": "ada lovelace@example.com"}, "email"),
        ({"email": "a\x00da@example.com"}, "email"),
        ({"email": f"ada@{'x' * 64}.com"}, "email"),
        ({"email": f"{'x' * 65}@example.com"}, "email"),
        ({"email": f"ada@{'x.' * 130}com"}, "email"),
        ({"password": "x" * 14}, "password"),
        ({"password": "x" * 129}, "password"),
        ({"display_name": ""}, "displayName"),
        ({"display_name": " \t"}, "displayName"),
        ({"display_name": "x" * 101}, "displayName"),
        ({"display_name": "A\x00da"}, "displayName"),
        ({"profile": {"a": "x" * 17_000}}, "profile"),
        ({"profile": {"a": "nul \x00"}}, "profile"),
        ({"profile": {"nul \x00": 1}}, "profile"),
        ({"profile": {"a": float("nan")}}, "profile.a"),
        ({"profile": {"a": [float("inf")]}}, "profile.a[0]"),
        ({"profile": {"a": {"b": float("-inf")}}}, "profile.a.b"),
        ({"profile": {"a": 2.0**53}}, "profile.a"),
        ({"profile": Struct(fields={"a": Value()})}, "profile"),
        ({"request_id": "1"}, "requestId"),
    ],
)
async def test_a_user_that_breaks_a_rule_is_refused_by_the_fields_name(
    users: UserServiceAsyncStub, changes: dict[str, Any], field: str
) -> None:
    refusal = await refusal_of(users.CreateUser(create_user_request(**changes)))

    assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1")
    assert (refusal.reason, set(refusal.fields)) == ("INVALID_FIELDS", {field})


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "x" * 15},
        {"password": "pässwörter\x00 und ✨"},
        {"display_name": "x" * 100},
        {"display_name": "'; DROP TABLE users; --"},
        {"profile": {"a": "x" * 16_000}},
        {"profile": {"text": "a backslash and u0000: \\u0000"}},
        {"profile": {"least": 5e-324, "most": 2**53 - 1, "minus": -(2**53) + 1, "half": -0.5}},
        {"email": "o'brien+tag@sub.example.co.uk"},
    ],
)
async def test_a_user_at_the_edge_of_the_rules_is_kept_as_it_is(
    users: UserServiceAsyncStub, changes: dict[str, Any]
) -> None:
    request = create_user_request(**changes)

    created = await users.CreateUser(request)

    found = await users.GetUser(pb.GetUserRequest(id=created.id))
    assert found == created
    assert (found.email, found.display_name) == (request.email, request.display_name)
    assert found.profile == request.profile


async def test_every_wrong_field_is_named(users: UserServiceAsyncStub) -> None:
    refusal = await refusal_of(users.CreateUser(pb.CreateUserRequest(email="x")))

    assert set(refusal.fields) == {"email", "password", "displayName"}


async def test_many_users_come_in_the_order_of_their_ids_and_the_missing_are_named(
    users: UserServiceAsyncStub,
) -> None:
    first = await users.CreateUser(create_user_request())
    second = await users.CreateUser(create_user_request())
    nobody = new_uuid()

    answer = await users.BatchGetUsers(
        pb.BatchGetUsersRequest(ids=[second.id, nobody, first.id, second.id.upper(), nobody])
    )

    assert [user.id for user in answer.users] == [second.id, first.id]
    assert list(answer.missing_ids) == [nobody]


async def test_the_states_of_a_batch_come_without_anything_personal(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    active, suspended, deleted = [await users.CreateUser(create_user_request()) for _ in range(3)]
    users_database.query("UPDATE users SET state = 'SUSPENDED' WHERE id = %s", suspended.id)
    await users.DeleteUser(pb.DeleteUserRequest(id=deleted.id))
    nobody = new_uuid()

    ids = [suspended.id, nobody, active.id, suspended.id.upper(), deleted.id]
    answer = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=ids, view=user_pb2.USER_VIEW_STATE))

    assert list(answer.users) == [
        user_pb2.User(id=suspended.id, state=user_pb2.USER_STATE_SUSPENDED),
        user_pb2.User(id=active.id, state=user_pb2.USER_STATE_ACTIVE),
        user_pb2.User(id=deleted.id, state=user_pb2.USER_STATE_DELETED),
    ]
    assert list(answer.missing_ids) == [nobody]


async def test_a_full_view_of_a_batch_is_the_default(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request())

    by_default = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=[user.id]))
    in_full = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=[user.id], view=user_pb2.USER_VIEW_FULL))

    assert list(by_default.users) == list(in_full.users) == [user]


@pytest.mark.parametrize("ids", [[], ["1"], [new_uuid() for _ in range(201)]], ids=["none", "no uuid", "201"])
async def test_a_batch_is_of_1_to_200_ids(users: UserServiceAsyncStub, ids: list[str]) -> None:
    refusal = await refusal_of(users.BatchGetUsers(pb.BatchGetUsersRequest(ids=ids)))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")


async def test_a_batch_of_200_is_answered(users: UserServiceAsyncStub) -> None:
    answer = await users.BatchGetUsers(pb.BatchGetUsersRequest(ids=[new_uuid() for _ in range(200)]))

    assert len(answer.missing_ids) == 200


async def test_users_are_found_by_email_however_it_is_written(users: UserServiceAsyncStub) -> None:
    wanted = await users.CreateUser(create_user_request(email="Ada@bücher.example"))
    await users.CreateUser(create_user_request())

    answer = await users.ListUsers(pb.ListUsersRequest(email="ada@XN--BCHER-KVA.example"))

    assert [user.id for user in answer.users] == [wanted.id]


async def test_users_are_listed_by_state_and_without_one_the_deleted_are_left_out(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    active, suspended, deleted = [await users.CreateUser(create_user_request()) for _ in range(3)]
    users_database.query("UPDATE users SET state = 'SUSPENDED' WHERE id = %s", suspended.id)
    await users.DeleteUser(pb.DeleteUserRequest(id=deleted.id))

    async def listed(state: user_pb2.UserState.ValueType) -> list[str]:
        answer = await users.ListUsers(pb.ListUsersRequest(state=state))
        return [user.id for user in answer.users]

    assert await listed(user_pb2.USER_STATE_UNSPECIFIED) == [suspended.id, active.id]
    assert await listed(user_pb2.USER_STATE_ACTIVE) == [active.id]
    assert await listed(user_pb2.USER_STATE_SUSPENDED) == [suspended.id]
    assert await listed(user_pb2.USER_STATE_DELETED) == [deleted.id]


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"page_size": -1}, "pageSize"),
        ({"state": 99}, "state"),
        ({"email": "no email"}, "email"),
        ({"page_token": "x" * 513}, "pageToken"),
    ],
)
async def test_a_list_that_breaks_a_rule_is_refused(
    users: UserServiceAsyncStub, request_fields: dict[str, Any], field: str
) -> None:
    refusal = await refusal_of(users.ListUsers(pb.ListUsersRequest(**request_fields)))

    assert (refusal.code, refusal.reason, refusal.fields) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", (field,))


async def test_only_the_fields_that_are_present_change(users: UserServiceAsyncStub, clock: ManualClock) -> None:
    before = await users.CreateUser(create_user_request(profile={"a": 1}))
    clock.advance(timedelta(seconds=5))

    after = await users.UpdateUser(pb.UpdateUserRequest(id=before.id, display_name="Ada King"))

    assert after.display_name == "Ada King"
    assert (after.email, after.profile, after.created_at) == (before.email, before.profile, before.created_at)
    assert after.updated_at.seconds == before.updated_at.seconds + 5
    assert after.etag != before.etag
    assert await users.GetUser(pb.GetUserRequest(id=before.id)) == after


async def test_a_profile_is_replaced_whole_and_can_be_emptied(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request(profile={"a": 1, "b": 2}))

    replaced = await users.UpdateUser(pb.UpdateUserRequest(id=user.id, profile={"c": 3}))
    emptied = await users.UpdateUser(pb.UpdateUserRequest(id=user.id, profile={}))

    assert MessageToDict(replaced.profile) == {"c": 3}
    assert emptied.HasField("profile")
    assert not emptied.profile.fields


async def test_an_update_of_nothing_changes_nothing(users: UserServiceAsyncStub) -> None:
    before = await users.CreateUser(create_user_request())

    after = await users.UpdateUser(pb.UpdateUserRequest(id=before.id))

    assert after == before


async def test_a_stale_etag_is_refused_with_the_current_one(users: UserServiceAsyncStub) -> None:
    stale = (await users.CreateUser(create_user_request())).etag
    [user] = (await users.ListUsers(pb.ListUsersRequest())).users
    current = (await users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="B", etag=stale))).etag

    refusals = [
        await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="C", etag=stale))),
        await refusal_of(users.DeleteUser(pb.DeleteUserRequest(id=user.id, etag=stale))),
    ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain) == (StatusCode.ABORTED, "shop.system.v1")
        assert (refusal.reason, refusal.metadata) == ("ETAG_MISMATCH", {"etag": current})
    assert (await users.GetUser(pb.GetUserRequest(id=user.id))).display_name == "B"


async def test_a_password_is_changed_with_the_current_one(users: UserServiceAsyncStub) -> None:
    user = await users.CreateUser(create_user_request())

    changed = await users.ChangePassword(change_password(user.id), metadata=bearer(token_of(user.id)))

    assert changed.etag != user.etag
    refusal = await refusal_of(users.ChangePassword(change_password(user.id), metadata=bearer(token_of(user.id))))
    assert (refusal.code, refusal.domain) == (StatusCode.UNAUTHENTICATED, "shop.user.v1")
    assert (refusal.reason, refusal.metadata) == ("INVALID_CREDENTIALS", {})
    back = change_password(user.id, current_password=NEW_PASSWORD, new_password=PASSWORD)
    assert (await users.ChangePassword(back, metadata=bearer(token_of(user.id)))).id == user.id


async def test_a_wrong_password_changes_no_user(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    user = await users.CreateUser(create_user_request())
    before = users_database.query("SELECT users::text FROM users")

    refusal = await refusal_of(
        users.ChangePassword(
            change_password(user.id, current_password="wrong horse"), metadata=bearer(token_of(user.id))
        )
    )

    assert refusal.reason == "INVALID_CREDENTIALS"
    assert users_database.query("SELECT users::text FROM users") == before


async def test_a_password_is_kept_as_an_argon2id_hash_only(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    user = await users.CreateUser(create_user_request(request_id=new_uuid()))
    await users.ChangePassword(change_password(user.id, request_id=new_uuid()), metadata=bearer(token_of(user.id)))

    [(password_hash,)] = users_database.query("SELECT password_hash FROM users")

    assert password_hash.startswith("$argon2id$")
    assert PASSWORD not in users_database.everything()
    assert NEW_PASSWORD not in users_database.everything()
    assert "argon2" not in str(users_database.query("SELECT data FROM outbox"))


async def test_a_change_of_a_user_has_one_event_with_its_version(
    users: UserServiceAsyncStub, users_database: TestDatabase, clock: ManualClock
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (("traceparent", trace),)
    user = await users.CreateUser(create_user_request(), metadata=metadata)
    await users.UpdateUser(
        pb.UpdateUserRequest(id=user.id, email="new@example.com", profile={"a": 1}), metadata=metadata
    )
    await users.UpdateUser(pb.UpdateUserRequest(id=user.id))
    await users.ChangePassword(change_password(user.id), metadata=metadata + bearer(token_of(user.id)))
    await users.DeleteUser(pb.DeleteUserRequest(id=user.id), metadata=metadata)
    await users.DeleteUser(pb.DeleteUserRequest(id=user.id), metadata=metadata)

    rows = users_database.query(
        "SELECT type, subject::text, sequence, data, traceparent, occurred_at FROM outbox ORDER BY position"
    )

    plain = {"userId": user.id, "state": "ACTIVE"}
    expected = [
        ("user.created", plain),
        ("user.updated", {**plain, "changedFields": ["email", "profile"]}),
        ("user.updated", {**plain, "changedFields": ["password"]}),
        ("user.deleted", {"userId": user.id, "state": "DELETED"}),
    ]
    assert [(row[0], row[3]) for row in rows] == expected
    assert [row[2] for row in rows] == [1, 2, 3, 4]
    assert {(row[1], row[4], row[5]) for row in rows} == {(user.id, trace, clock.now())}


def change_password(user_id: str, **changes: str) -> pb.ChangePasswordRequest:
    fields = {"id": user_id, "current_password": PASSWORD, "new_password": NEW_PASSWORD}
    return pb.ChangePasswordRequest(**{**fields, **changes})
