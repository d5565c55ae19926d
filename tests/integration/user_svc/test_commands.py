"""Commands of an operator about users and keys, as `python -m user_svc admin create`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shop.system.v1 import access_pb2
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import LOOPBACK, bearer, plain_channel
from tests.integration.inprocess import database_settings
from tests.integration.replica import run
from tests.integration.user_svc.inprocess import user_service
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from tests.integration.databases import TestDatabase

EMAIL = "ada@example.com"
ADMIN_PASSWORD = "an admins password"
NO_DATABASE = f"postgresql://nobody:wrong@{LOOPBACK}:1/none"


async def test_a_new_admin_can_log_in_and_list_all_users(users_database: TestDatabase) -> None:
    ended = run("user_svc", f"admin create {EMAIL}", typed=f"{ADMIN_PASSWORD}\n", DATABASE_URL=users_database.url)

    assert (ended.returncode, ended.stderr) == (0, "")
    async with (
        user_service(database_settings(users_database.url)) as address,
        plain_channel(address, token="") as channel,
    ):
        login = sessions_pb.CreateSessionRequest(email=EMAIL, password=ADMIN_PASSWORD)
        session = await SessionServiceStub(channel).CreateSession(login)
        listed = await UserServiceStub(channel).ListUsers(pb.ListUsersRequest(), metadata=bearer(session.access_token))
    [admin] = listed.users
    assert ended.stdout == f"{admin.id} is an admin\n"
    assert list(admin.roles) == [access_pb2.ROLE_USER, access_pb2.ROLE_ADMIN]
    assert users_database.query("SELECT type, data ->> 'userId' FROM outbox") == [("user.created", admin.id)]


async def test_an_existing_user_becomes_an_admin_and_keeps_the_password(users_database: TestDatabase) -> None:
    async with (
        user_service(database_settings(users_database.url)) as address,
        plain_channel(address, token="") as channel,
    ):
        user = await UserServiceStub(channel).CreateUser(create_user_request(email=EMAIL))

        ended = run("user_svc", f"admin create {EMAIL.upper()}", typed=ADMIN_PASSWORD, DATABASE_URL=users_database.url)

        login = sessions_pb.CreateSessionRequest(email=EMAIL, password=PASSWORD)
        session = await SessionServiceStub(channel).CreateSession(login)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{user.id} is an admin\n", "")
    assert session.user_id == user.id
    assert users_database.query("SELECT roles, display_name FROM users") == [(["USER", "ADMIN"], user.display_name)]
    events = users_database.query("SELECT type, subject::text, sequence, data FROM outbox ORDER BY position")
    assert events[1:] == [
        ("user.updated", user.id, 2, {"userId": user.id, "state": "ACTIVE", "changedFields": ["roles"]})
    ]


def test_an_admin_who_is_created_again_stays_an_admin(users_database: TestDatabase) -> None:
    command = f"admin create {EMAIL}"
    first = run("user_svc", command, typed=ADMIN_PASSWORD, DATABASE_URL=users_database.url)

    again = run("user_svc", command, typed=ADMIN_PASSWORD, DATABASE_URL=users_database.url)

    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert users_database.query("SELECT roles FROM users") == [(["USER", "ADMIN"],)]


@pytest.mark.parametrize(
    ("email", "password", "field"),
    [
        ("nobody", ADMIN_PASSWORD, "email"),
        (EMAIL, "canary", "password"),
        (EMAIL, "canary of 14 c", "password"),
        (EMAIL, "", "password"),
    ],
)
def test_a_refused_admin_is_one_clear_line(users_database: TestDatabase, email: str, password: str, field: str) -> None:
    ended = run("user_svc", f"admin create {email}", typed=f"{password}\n", DATABASE_URL=users_database.url)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"Correct these fields: {field}: ")
    assert ended.stderr.count("\n") == 1
    assert "canary" not in ended.stderr
    assert users_database.query("SELECT count(*) FROM users") == [(0,)]


@pytest.mark.parametrize("command", [f"admin create {EMAIL}", "keys list", "keys rotate"])
def test_a_command_without_a_database_is_one_clear_line(command: str) -> None:
    ended = run("user_svc", command, typed=ADMIN_PASSWORD, DATABASE_URL=NO_DATABASE)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("The database does not answer: ")
    assert "Connection refused" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("--help", ["serve", "migrate", "keys", "admin"]),
        ("keys --help", ["rotate", "Make a new signing key", "list", "List the published signing keys"]),
        ("admin --help", ["create", "Make the user with this email an admin"]),
        ("admin create --help", ["email", "the password on standard input"]),
        ("sessions --help", ["end-all", "End the sessions of all users"]),
    ],
)
def test_the_help_describes_every_command(command: str, told: list[str]) -> None:
    ended = run("user_svc", command)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [each for each in told if each not in " ".join(ended.stdout.split())] == []


@pytest.mark.parametrize("command", ["keys", "admin", "admin create", "keys list more", "rotate"])
def test_an_unknown_command_shows_the_usage(command: str) -> None:
    ended = run("user_svc", command)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: python -m user_svc")


def test_a_database_without_tables_is_one_clear_line(empty_database: TestDatabase) -> None:
    ended = run("user_svc", "serve", DATABASE_URL=empty_database.url)

    assert ended.returncode == 1
    assert ended.stderr == "The database is not ready: run `python -m user_svc migrate` first.\n"
