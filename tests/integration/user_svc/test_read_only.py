"""Every write of users and sessions to a database that takes none says so, and is done once it takes them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import plain_channel
from tests.integration.databases import fresh_database
from tests.integration.inprocess import database_settings
from tests.integration.read_only_writes import require_refused_while_read_only
from tests.integration.user_svc.inprocess import user_service
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from devstack.postgres import PostgresServer


async def test_writes_to_a_read_only_database_are_unavailable_and_come_back_without_a_restart(
    postgres: PostgresServer,
) -> None:
    with fresh_database(postgres, "user_svc") as rows:
        async with user_service(database_settings(rows.url)) as address, plain_channel(address) as channel:
            users, sessions = UserServiceStub(channel), SessionServiceStub(channel)
            request = create_user_request()
            user = await users.CreateUser(request)
            login = sessions_pb.CreateSessionRequest(email=request.email, password=PASSWORD)
            session = await sessions.CreateSession(login)

            read = users_pb.GetUserRequest(id=user.id)
            writes: dict[str, Callable[[], Awaitable[object]]] = {
                "CreateUser": lambda: users.CreateUser(create_user_request()),
                "UpdateUser": lambda: users.UpdateUser(users_pb.UpdateUserRequest(id=user.id, display_name="B")),
                "CreateSession": lambda: sessions.CreateSession(login),
                "RefreshSession": lambda: sessions.RefreshSession(
                    sessions_pb.RefreshSessionRequest(refresh_token=session.refresh_token)
                ),
                "DeleteUser": lambda: users.DeleteUser(users_pb.DeleteUserRequest(id=user.id)),
            }
            await require_refused_while_read_only(rows, writes, read=lambda: users.GetUser(read))
