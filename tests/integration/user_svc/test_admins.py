"""Admins, as the operator's command makes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chassis.context import Role
from chassis.errors import InvalidFields
from tests.integration.databases import transaction
from tests.integration.event_flow import opened
from tests.integration.user_svc.inprocess import CHEAP, NIST
from tests.services.user_svc.builders import a_user
from user_svc import repository
from user_svc.admins import make_admin
from user_svc.commands import NewUser
from user_svc.errors import EmailTaken
from user_svc.model import Email
from user_svc.password_rules import PasswordRules
from user_svc.passwords import Passwords

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase
    from user_svc.model import User

    MakeAdmin = Callable[[NewUser], Coroutine[Any, Any, User]]

EMAIL = Email.parse("ada@example.com")
ROLES = "SELECT roles FROM users"
EVENTS = "SELECT type, data -> 'changedFields' FROM outbox ORDER BY position"


def an_admin(password: str = "a long password for admins") -> NewUser:
    return NewUser(email=EMAIL, password=password, display_name="Ada", profile={})


@pytest.fixture
async def make(users_database: TestDatabase, clock: ManualClock) -> AsyncIterator[MakeAdmin]:
    """Makes an admin, as the command does."""
    passwords = Passwords(CHEAP)
    async with opened(users_database.url) as database:
        yield lambda new: make_admin(database, passwords, PasswordRules(NIST), new=new, now=clock.now())
    await passwords.close()


async def test_the_first_admin_is_a_new_user_with_an_event(make: MakeAdmin, users_database: TestDatabase) -> None:
    admin = await make(an_admin())

    assert admin.roles == (Role.USER, Role.ADMIN)
    assert users_database.query(ROLES) == [(["USER", "ADMIN"],)]
    assert users_database.query(EVENTS) == [("user.created", None)]


async def test_a_user_becomes_an_admin_once_and_keeps_the_password(
    make: MakeAdmin, users_database: TestDatabase
) -> None:
    known = "SELECT id, password_hash FROM users"
    with transaction(users_database) as connection:
        repository.insert_users(connection, [a_user(email=EMAIL, password_hash="kept")])
    before = users_database.query(known)

    for _ in range(2):
        await make(an_admin())

    assert users_database.query(known) == before
    assert users_database.query(ROLES) == [(["USER", "ADMIN"],)]
    assert users_database.query(EVENTS) == [("user.updated", ["roles"])] * 2


async def test_an_admin_with_a_weak_password_is_not_made(make: MakeAdmin, users_database: TestDatabase) -> None:
    with pytest.raises(InvalidFields):
        await make(an_admin("short"))

    assert users_database.query(ROLES) == []


async def test_a_user_who_registers_the_email_at_the_same_moment_does_not_become_an_admin(
    make: MakeAdmin, users_database: TestDatabase
) -> None:
    with transaction(users_database) as connection:
        repository.insert_users(connection, [a_user(email=EMAIL)])
        making = asyncio.create_task(make(an_admin()))
        await users_database.until_waiting()

    with pytest.raises(EmailTaken):
        await making
    assert users_database.query(ROLES) == [(["USER"],)]
    assert users_database.query(EVENTS) == []
