"""A deletion erases the user's text from the database and from the stream; no log ever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from structlog.testing import capture_logs

from chassis.testing import bearer, new_uuid, refusal_of, token_of, until
from tests.integration.event_flow import relay, running
from tests.support.free_text import free_texts, stored_text
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from redis import Redis
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

# Of texts and of password hashes. bytea is shown in hexadecimal, and that is how responses are stored.
TRACES = ("canary", b"canary".hex(), "argon2", b"argon2".hex())
PLANTED = {"email", "password", "display_name", "profile", "current_password", "new_password"}


def test_every_free_text_of_the_contract_is_planted_below() -> None:
    assert free_texts(users_pb.DESCRIPTOR, sessions_pb.DESCRIPTOR) == PLANTED


async def test_text_of_a_deleted_user_is_in_no_table_and_no_stream(
    users: UserServiceAsyncStub,
    sessions: SessionServiceAsyncStub,
    users_database: TestDatabase,
    redis_url: str,
    stored: Redis,
) -> None:
    with capture_logs() as logs:
        async with relay(users_database.url, redis=redis_url, resource="user") as relaying, running(relaying.run):
            user = await users.CreateUser(
                create_user_request(
                    email="canary-one@example.com",
                    password="canary password one",
                    display_name="canary name one",
                    profile={"canary": "profile one"},
                    request_id=new_uuid(),
                )
            )
            guess = sessions_pb.CreateSessionRequest(email="canary-one@example.com", password="canary password none")
            await refusal_of(sessions.CreateSession(guess))
            login = sessions_pb.CreateSessionRequest(email="canary-one@example.com", password="canary password one")
            await sessions.CreateSession(login)
            await users.ChangePassword(
                users_pb.ChangePasswordRequest(
                    id=user.id,
                    current_password="canary password one",
                    new_password="canary password two",
                    request_id=new_uuid(),
                ),
                metadata=bearer(token_of(user.id)),
            )
            await users.UpdateUser(
                users_pb.UpdateUserRequest(
                    id=user.id,
                    email="canary-two@example.com",
                    display_name="canary two",
                    profile={"a": "canary"},
                    request_id=new_uuid(),
                )
            )
            assert all(trace in users_database.everything() for trace in TRACES)

            await users.DeleteUser(users_pb.DeleteUserRequest(id=user.id, request_id=new_uuid()))

            async def is_published() -> bool:
                return users_database.query("SELECT count(*) FROM outbox WHERE published_at IS NULL") == [(0,)]

            await until(is_published)

    for text in (users_database.everything(), stored_text(stored), str(logs)):
        assert [trace for trace in TRACES if trace in text] == []
    assert user.id in users_database.everything()
    assert user.id in stored_text(stored)


async def test_text_of_other_users_stays(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    gone, other = [await users.CreateUser(create_user_request(display_name=name)) for name in ("Ada", "Grace Hopper")]

    await users.DeleteUser(users_pb.DeleteUserRequest(id=gone.id))

    assert "Grace Hopper" in users_database.everything()
    assert (await users.GetUser(users_pb.GetUserRequest(id=other.id))).display_name == "Grace Hopper"
