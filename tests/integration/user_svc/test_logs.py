"""The log of the user service has no personal data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import bearer, plain_channel, refusal_of, token_of
from tests.integration.replica import serving_process
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.databases import TestDatabase


async def test_nothing_personal_is_written(users_copy: TestDatabase, tmp_path: Path) -> None:
    async with (
        serving_process("user_svc", tmp_path, DATABASE_URL=users_copy.url, LOG_LEVEL="DEBUG") as replica,
        plain_channel(replica.address) as channel,
    ):
        users = UserServiceStub(channel)
        create = create_user_request(
            email="canary@example.com", password="canary password", display_name="Canary", profile={"canary": "canary"}
        )
        user = await users.CreateUser(create)
        await refusal_of(users.CreateUser(create))
        await refusal_of(users.CreateUser(create_user_request(email="canary", password="canary")))
        await users.ListUsers(pb.ListUsersRequest(email="canary@example.com"))
        await users.UpdateUser(pb.UpdateUserRequest(id=user.id, email="canary@example.org"))
        as_user = bearer(token_of(user.id))
        for current in ("canary wrong", "canary password"):
            change = pb.ChangePasswordRequest(id=user.id, current_password=current, new_password="canary password 2")
            if current == "canary password":
                await users.ChangePassword(change, metadata=as_user)
            else:
                await refusal_of(users.ChangePassword(change, metadata=as_user))
        # A defect, whose whole cause is logged.
        users_copy.query("DROP TABLE outbox")
        await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=user.id, email="canary@example.net")))
        users_copy.query("DROP TABLE users CASCADE")
        await refusal_of(users.CreateUser(create))
        replica.process.terminate()
        await replica.exit_code(within_s=10)

    assert len(replica.log("rpc.defect")) == 2
    assert "canary" not in replica.output().lower()
    assert "argon2id" not in replica.output()
    assert users_copy.url not in replica.output()
