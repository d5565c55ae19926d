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
from user_svc.attempts import Attempts
from user_svc.commands import NewUser
from user_svc.errors import EmailTaken
from user_svc.model import Email
from user_svc.password_rules import PasswordRules
from user_svc.passwords import Passwords
from user_svc.service import UserService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

EMAIL = Email.parse("ada@example.com")
ROLES = "SELECT roles FROM users"
EVENTS = "SELECT type, data -> 'changedFields' FROM outbox ORDER BY position"


def an_admin(password: str = "a long password for admins") -> NewUser:
    return NewUser(email=EMAIL, password=password, display_name="Ada", profile={})


@pytest.fixture
async def service(users_database: TestDatabase, clock: ManualClock) -> AsyncIterator[UserService]:
    passwords = Passwords(CHEAP)
    async with opened(users_database.url, lock_timeout_s=4) as database:
        attempts = Attempts(database, passwords, clock)
        yield UserService(database, passwords, attempts, PasswordRules(NIST), clock=clock)
    await passwords.close()


async def test_the_first_admin_is_a_new_user_with_an_event(service: UserService, users_database: TestDatabase) -> None:
    admin = await service.make_admin(an_admin())

    assert admin.roles == (Role.USER, Role.ADMIN)
    assert users_database.query(ROLES) == [(["USER", "ADMIN"],)]
    assert users_database.query(EVENTS) == [("user.created", None)]


async def test_a_user_becomes_an_admin_once_and_keeps_the_password(
    service: UserService, users_database: TestDatabase
) -> None:
    known = "SELECT id, password_hash FROM users"
    with transaction(users_database) as connection:
        repository.insert_users(connection, [a_user(email=EMAIL, password_hash="kept")])
    before = users_database.query(known)

    for _ in range(2):
        await service.make_admin(an_admin())

    assert users_database.query(known) == before
    assert users_database.query(ROLES) == [(["USER", "ADMIN"],)]
    assert users_database.query(EVENTS) == [("user.updated", ["roles"])] * 2


async def test_an_admin_with_a_weak_password_is_not_made(service: UserService, users_database: TestDatabase) -> None:
    with pytest.raises(InvalidFields):
        await service.make_admin(an_admin("short"))

    assert users_database.query(ROLES) == []


async def test_a_user_who_registers_the_email_at_the_same_moment_does_not_become_an_admin(
    service: UserService, users_database: TestDatabase
) -> None:
    with transaction(users_database) as connection:
        repository.insert_users(connection, [a_user(email=EMAIL)])
        making = asyncio.create_task(service.make_admin(an_admin()))
        await users_database.until_waiting()

    with pytest.raises(EmailTaken):
        await making
    assert users_database.query(ROLES) == [(["USER"],)]
    assert users_database.query(EVENTS) == []
