"""The largest users that the contract allows, through a channel that takes 4 MiB as stock ones do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from shop.user.v1 import user_service_pb2 as users_pb

from chassis.server.pagination import MAX_BYTES
from chassis.testing import new_uuid, refusal_of
from tests.support.pages import STOCK_BYTES, WIDE, walked
from user_svc.model import MAX_PROFILE_BYTES, require_small_profile

if TYPE_CHECKING:
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

# Kept as JSON, a number takes two bytes; in a message eleven.
LARGEST_PROFILE: Final = {"a": [1] * ((MAX_PROFILE_BYTES - len('{"a":[]}') + 1) // 2)}


def write_users(database: TestDatabase, number: int) -> list[str]:
    """Write users with everything as large as it may be; return their ids, newest first."""
    require_small_profile(LARGEST_PROFILE)
    rows = database.query(
        "INSERT INTO users (id, email, email_key, display_name, profile, state, roles, password_hash,"
        " created_at, updated_at, version)"
        " SELECT gen_random_uuid(), repeat('a', 240) || n, n::text, repeat(%s, 100), CAST(%s AS jsonb), 'ACTIVE',"
        " '{USER}', 'x', now(), now(), 1 FROM generate_series(1, %s) AS n RETURNING id::text",
        WIDE,
        json.dumps(LARGEST_PROFILE),
        number,
    )
    return sorted((user_id for (user_id,) in rows), reverse=True)


async def test_pages_of_users_fit_and_give_each_once(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    written = write_users(users_database, 60)

    ids, sizes = await walked(
        lambda token: users.ListUsers(users_pb.ListUsersRequest(page_size=200, page_token=token)), "users"
    )

    assert ids == written
    assert max(sizes) <= MAX_BYTES + 200 * 8
    assert sum(sizes) > STOCK_BYTES


async def test_users_asked_for_by_id_fit_or_are_too_many_at_a_time(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    written = write_users(users_database, 60)

    refusal = await refusal_of(users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=written)))
    few = await users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=[*written[:40], new_uuid()]))

    assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", ("ids",))
    assert "fewer at a time" in refusal.message
    assert [user.id for user in few.users] == written[:40]
    assert len(few.missing_ids) == 1


async def test_200_users_with_profiles_of_16_kib_of_text_fit(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    written = write_users(users_database, 200)
    text = {"a": "a" * (MAX_PROFILE_BYTES - len('{"a":""}'))}
    users_database.query("UPDATE users SET profile = CAST(%s AS jsonb)", json.dumps(text))

    answer = await users.BatchGetUsers(users_pb.BatchGetUsersRequest(ids=written))

    assert len(answer.users) == 200
