"""A profile costs little to keep and to read, whatever is in it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pytest
from shop.user.v1 import user_service_pb2 as pb

from chassis.errors import InvalidFields
from tests.integration.event_flow import opened
from tests.integration.user_svc.test_page_bytes import write_users
from tests.support.requests import create_user_request
from tests.support.turns import counted_turns
from user_svc.model import MAX_PROFILE_BYTES, UserId, require_small_profile
from user_svc.service import UserService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

AT_ONCE: Final = 50
GROUPS: Final = 9


def is_kept(profile: dict[str, object]) -> bool:
    try:
        require_small_profile(profile)
    except InvalidFields:
        return False
    return True


def most_of(number: float) -> dict[str, object]:
    """Return a profile with the number as often as it may be there."""
    low, high = 1, MAX_PROFILE_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_kept({"k": [number] * middle}) else (low, middle - 1)
    return {"k": [number] * low}


@pytest.mark.parametrize("number", [1, 0.1, -1e-7, 1.5e-300, 5e-324])
async def test_a_profile_of_any_numbers_takes_little_space(
    users: UserServiceAsyncStub, users_database: TestDatabase, number: float
) -> None:
    user = await users.CreateUser(create_user_request(profile=most_of(number)))

    # PostgreSQL writes a space after each comma.
    [(size,)] = users_database.query("SELECT octet_length(profile::text) FROM users WHERE id = %s", user.id)
    assert MAX_PROFILE_BYTES * 0.9 < size <= MAX_PROFILE_BYTES * 1.5
    assert user.profile["k"][0] == number


async def test_profiles_that_are_read_at_once_leave_turns_of_the_loop_to_others(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    [user_id] = write_users(users_database, 1)

    async def read() -> None:
        assert (await users.GetUser(pb.GetUserRequest(id=user_id))).id == user_id

    assert await longest_turn_s(read, at_once=AT_ONCE) < AT_ONCE / 4 * await longest_turn_s(read, at_once=1)


async def test_largest_groups_that_are_read_at_once_leave_turns_of_the_loop_to_others(
    users_database: TestDatabase, clock: ManualClock
) -> None:
    ids = [UserId(UUID(each)) for each in write_users(users_database, 200)]
    unused: Any = None

    async with opened(users_database.url) as database:
        service = UserService(database, unused, unused, unused, clock=clock)

        async def read() -> None:
            assert len(await service.get_users(ids)) == 200

        # One group takes some 30 ms, of the 100 that docs/limits.md allows for a turn.
        assert await longest_turn_s(read, at_once=GROUPS) < GROUPS / 2 * await longest_turn_s(read, at_once=1)


async def longest_turn_s(read: Callable[[], Awaitable[None]], *, at_once: int) -> float:
    """Return the CPU time of the longest turn of the loop; of three, because other work may fall into one of them."""
    longest_s: list[float] = []
    for _ in range(3):
        async with counted_turns() as turns:
            await asyncio.gather(*[read() for _ in range(at_once)])
        longest_s.append(turns.longest_s)
    return min(longest_s)


async def test_a_user_with_a_small_profile_does_not_wait_behind_large_ones(
    users: UserServiceAsyncStub, users_database: TestDatabase
) -> None:
    [user_id] = write_users(users_database, 1)
    ada = await users.CreateUser(create_user_request(profile={"theme": "dark", "sizes": [1, 2]}))
    answered: list[str] = []

    async def read(id_: str) -> None:
        answered.append((await users.GetUser(pb.GetUserRequest(id=id_))).id)

    await asyncio.gather(*[read(each) for each in [user_id] * AT_ONCE + [ada.id]])

    assert answered.index(ada.id) < AT_ONCE // 2
