"""A user, made and seen over REST, over typed stubs and by the command line: all see the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format
from shop.user.v1 import user_service_pb2 as users
from shop.user.v1.user_pb2 import User
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.client import connect
from chassis.server.contract import service_names
from devstack.screen import ready_screen
from devstack.settings import REPOSITORY
from protos.client import connect_sync
from tests.e2e.callers import rest_outcome
from tests.e2e.contract import RPCS, Json, as_json
from tests.e2e.world import request_json
from tests.support.requests import create_user_request
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from devstack.stack import Stack
    from tests.e2e.callers import Edge

    Call = Callable[[str, Json], Json]

TOOLS = REPOSITORY / ".tools"
BUF = REPOSITORY / "node_modules" / ".bin" / "buf"
GRPCURL = shutil.which("grpcurl", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")

needs_grpcurl = pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not there: make grpcurl builds it where Go is")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_buf(edge: Edge) -> Call:
    def call(method: str, request: Json) -> Json:
        bearer = ("-H", f"authorization: Bearer {edge.token}")
        flags = ("--protocol", "grpc", "--http2-prior-knowledge", "--emit-defaults", "-d", json.dumps(request), *bearer)
        return dict(json.loads(run(str(BUF), "curl", *flags, f"{edge.url}/{method}")))

    return call


def by_grpcurl(edge: Edge) -> Call:
    def call(method: str, request: Json) -> Json:
        bearer = ("-H", f"authorization: Bearer {edge.token}")
        flags = ("-plaintext", "-emit-defaults", "-d", json.dumps(request), *bearer)
        return dict(json.loads(run(str(GRPCURL), *flags, edge.authority, method)))

    return call


COMMAND_LINES = [pytest.param(by_buf, id="buf"), pytest.param(by_grpcurl, id="grpcurl", marks=needs_grpcurl)]


@pytest.mark.parametrize("command_line", COMMAND_LINES)
def test_resources_created_over_rest_are_visible_to_every_client(
    edge: Edge, command_line: Callable[[Edge], Call]
) -> None:
    user = edge.http.post("/api/v1/users", json=request_json(create_user_request())).json()

    with connect_sync(edge.authority, token=edge.token) as channel:
        by_stub = UserServiceStub(channel).GetUser(users.GetUserRequest(id=user["id"]))
    called = command_line(edge)("shop.user.v1.UserService/GetUser", {"id": user["id"]})

    assert as_json(by_stub) == _same(called, User) == user


async def test_resources_created_by_a_typed_stub_are_visible_to_every_client(edge: Edge) -> None:
    async with connect(edge.authority, token=edge.token) as channel:
        user = await UserServiceStub(channel).CreateUser(create_user_request())

    assert rest_outcome(edge.http.get(f"/api/v1/users/{user.id}")).body == as_json(user)
    assert by_buf(edge)("shop.user.v1.UserService/GetUser", {"id": user.id}) == as_json(user)


@pytest.mark.parametrize("command_line", COMMAND_LINES)
def test_resources_created_by_a_command_line_are_visible_to_every_client(
    edge: Edge, command_line: Callable[[Edge], Call]
) -> None:
    user = command_line(edge)("shop.user.v1.UserService/CreateUser", request_json(create_user_request()))

    assert edge.http.get(f"/api/v1/users/{user['id']}").json() == _same(user, User)
    with connect_sync(edge.authority, token=edge.token) as channel:
        by_stub = UserServiceStub(channel).GetUser(users.GetUserRequest(id=user["id"]))
    assert as_json(by_stub) == _same(user, User)


def test_reflection_lists_every_method_for_buf(edge: Edge) -> None:
    flags = ("--protocol", "grpc", "--http2-prior-knowledge", "--list-methods")

    listed = run(str(BUF), "curl", *flags, edge.url).split()

    assert {rpc.path.removeprefix("/") for rpc in RPCS} <= set(listed)


@needs_grpcurl
def test_reflection_lists_and_describes_every_service_for_grpcurl(edge: Edge) -> None:
    listed = run(str(GRPCURL), "-plaintext", edge.authority, "list").split()

    assert set(service_names()) <= set(listed)
    for service in service_names():
        assert "service" in run(str(GRPCURL), "-plaintext", edge.authority, "describe", service)


@pytest.mark.parametrize("path", [pytest.param([TOOLS], id="grpcurl", marks=needs_grpcurl), pytest.param([], id="buf")])
def test_the_calls_of_the_ready_screen_work_when_pasted(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, path: list[Path]
) -> None:
    if path and GRPCURL:
        path = [Path(GRPCURL).parent]
    monkeypatch.setenv("PATH", os.pathsep.join([*map(str, path), _path_without_grpcurl()]))

    _next_second()

    # One shell: the first call keeps the token for the others.
    marked = "\necho ----\n".join(_snippets(ready_screen(stack)))
    user, order, listed = run("bash", "-c", marked).split("----")

    assert json.loads(user)["displayName"] == "Ada"
    assert f'user_id: "{json.loads(user)["id"]}"' in order
    assert f'id: "{json.loads(listed)["orders"][0]["id"]}"' in order


def test_the_readme_shows_how_the_ready_screen_begins(stack: Stack) -> None:
    [promised] = re.findall(r"```\n(Ready\. .*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)

    screen = re.sub(r"(?<=trust ).*(?=/tls/)", ".devstack", ready_screen(stack).lstrip())
    assert re.sub(r":\d+", ":8", screen).startswith(re.sub(r":\d+", ":8", promised))


def _snippets(screen: str) -> list[str]:
    """Return the three calls as a person would copy them: from below their headings to the next one."""
    calls = re.split(r"^\d\. .*\n", screen, flags=re.MULTILINE)[1:]
    assert len(calls) == 3, screen
    # The last may come in two ways.
    return [call.partition("   or, once grpcurl is installed:")[0] for call in calls]


def _path_without_grpcurl() -> str:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "grpcurl").exists())


def _same(message: Json, kind: type[Message]) -> Json:
    """Return the message as the edge prints it: tools differ in how they spell names and absent fields."""
    return as_json(json_format.ParseDict(message, kind()))


def _next_second() -> None:
    """Wait until the clock shows another second: the screen makes an email of it, new for every person."""
    now = int(time.time())
    until(lambda: int(time.time()) > now)
