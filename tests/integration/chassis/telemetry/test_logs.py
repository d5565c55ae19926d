"""A service's log: JSON lines, one for each call, without personal data."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import bearer, new_uuid, plain_channel, refusal_of, token_of
from tests.integration.replica import REPOSITORY, serving_process
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import TestDatabase


async def test_a_call_is_one_line_with_its_method_code_and_request_id(
    users_database: TestDatabase, tmp_path: Path
) -> None:
    nobody, request_id = new_uuid(), new_uuid()
    async with (
        serving_process("user_svc", tmp_path, DATABASE_URL=users_database.url, SERVICE_VERSION="1.2.3") as replica,
        plain_channel(replica.address) as channel,
    ):
        users = UserServiceStub(channel)
        metadata = (("x-request-id", request_id),)
        await users.CreateUser(create_user_request(), metadata=metadata)
        await refusal_of(users.GetUser(pb.GetUserRequest(id=nobody), metadata=metadata))
        await refusal_of(channel.unary_unary("/shop.user.v1.UserService/GetUser")(b"\xff", metadata=metadata))
        replica.process.terminate()
        await replica.exit_code(within_s=10)

    lines = [line for line in replica.log("rpc.handled") if "grpc.health" not in line["method"]]
    assert [(line["method"].rpartition("/")[2], line["code"], line.get("reason")) for line in lines] == [
        ("CreateUser", "OK", None),
        ("GetUser", "NOT_FOUND", "USER_NOT_FOUND"),
        ("GetUser", "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
    ]
    for line in lines:
        assert (line["request_id"], line["service"], line["version"]) == (request_id, "user_svc", "1.2.3")
        assert line["duration_ms"] > 0
        assert line["timestamp"].endswith("Z")


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


async def test_every_line_is_json(users_database: TestDatabase, tmp_path: Path) -> None:
    async with serving_process("user_svc", tmp_path, DATABASE_URL=users_database.url) as replica:
        replica.process.terminate()
        await replica.exit_code(within_s=10)

    lines = [json.loads(line) for line in replica.output().splitlines()]
    assert {"server.started", "server.draining", "server.stopped"} <= {line["event"] for line in lines}


def test_on_a_terminal_lines_are_for_people() -> None:
    shown, terminal = pty.openpty()
    script = (
        "import structlog; from chassis import telemetry; from chassis.telemetry.settings import TelemetrySettings\n"
        "with telemetry.running(TelemetrySettings(service_name='x'), command='serve'): "
        "structlog.get_logger().info('said', number=7)"
    )
    env = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=env, stdout=terminal, check=True, timeout=60)
    os.close(terminal)
    line = os.read(shown, 65536)
    os.close(shown)

    assert b"\x1b[" in line
    assert b"said" in line
    assert not line.lstrip().startswith(b"{")
