"""The stack as a person uses it: its ready screen, Ctrl-C, a second start, and what can be in the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from devstack.screen import ready_screen
from devstack.settings import REPOSITORY, Settings
from devstack.stack import Stack
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


# Two stacks may start in the fixtures of one test.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = Settings(home=tmp_path_factory.mktemp("stack") / "home", edge_port=free_port(), drain_s=0)
    with Stack(settings) as stack:
        yield stack


@dataclass(frozen=True, slots=True)
class FirstRun:
    """A stack beside the module's, with a user, which Ctrl-C has stopped.

    Attributes:
        home, port: of the stack.
        user, token: as JSON, and an access token.
        admin: the admin's password.
        exit_code: of the command.
        left_running: command lines of its processes after the end.
    """

    home: Path
    port: int
    user: dict[str, Any]
    token: str
    admin: str
    exit_code: int
    left_running: list[str]


@pytest.fixture(scope="module")
def first_run(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    home, port = tmp_path_factory.mktemp("runs") / "home", free_port()
    create_user = _calls(ready_screen(stack))[0].replace(stack.edge_url, f"http://127.0.0.1:{port}")
    with _up(home, port) as process:
        _read_until_ready(process)
        user, token = _paste(create_user + "\necho $TOKEN").splitlines()
        admin = (home / "admin").read_text()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    return FirstRun(home, port, json.loads(user), token, admin, process.returncode, _processes_of(home))


@dataclass(frozen=True, slots=True)
class SecondRun:
    """The same stack again, killed without a chance to clean up.

    Attributes:
        found: the first run's user, asked for with the first run's token.
        admin: the admin's password.
        was_killed: whether the command was ended by SIGKILL.
    """

    found: dict[str, Any]
    admin: str
    was_killed: bool


@pytest.fixture(scope="module")
def second_run(first_run: FirstRun) -> SecondRun:
    with _up(first_run.home, first_run.port) as process:
        _read_until_ready(process)
        url = f"http://127.0.0.1:{first_run.port}/api/v1/users/{first_run.user['id']}"
        found = httpx.get(url, headers={"authorization": f"Bearer {first_run.token}"})
        admin = (first_run.home / "admin").read_text()
        process.kill()
    return SecondRun(found.json(), admin, process.returncode == -signal.SIGKILL)


def _calls(screen: str) -> list[str]:
    """Return what stands between the numbered headings of the ready screen, up to an alternative."""
    parts = re.split(r"^\d\. .*:$", screen, flags=re.MULTILINE)[1:]
    return [part.split("   or, ")[0] for part in parts]


def _paste(call: str) -> str:
    shell = subprocess.run(["bash", "-c", call], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert shell.returncode == 0, shell.stderr
    return shell.stdout


def _processes_of(home: Path) -> list[str]:
    """Return the command lines of processes that write to a log in the home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str((entry / "fd" / "1").readlink()).startswith(str(home)):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def _up(home: Path, port: int) -> subprocess.Popen[str]:
    env = {**os.environ, "SHOP_HOME": str(home), "SHOP_EDGE_PORT": str(port), "SHOP_DRAIN_S": "0", "SHOP_REPLICAS": "1"}
    command = [sys.executable, "-m", "devstack", "up"]
    return subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _read_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    for line in process.stdout:
        if line.startswith("Ready. "):
            return
    assert process.stderr
    pytest.fail(process.stderr.read())


def test_the_three_calls_of_the_ready_screen_work_as_pasted(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)

    # One shell: the first call leaves its token to the others.
    output = _paste("\necho ---\n".join(_calls(ready_screen(stack))))

    rest, python, grpc_call = output.split("---\n")
    user = json.loads(rest)
    assert f'user_id: "{user["id"]}"' in python
    assert [order["userId"] for order in json.loads(grpc_call)["orders"]] == [user["id"]]


def test_the_ready_screen_names_every_replica_and_no_password(stack: Stack) -> None:
    screen = ready_screen(stack)

    for service in stack.service_names:
        for replica in stack.replicas(service):
            assert replica.address in screen
    assert stack.postgres
    assert stack.postgres.passwords.password_of("user_svc") not in screen
    assert stack.admin_password not in screen


def test_the_ready_screen_says_where_the_events_are(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    if stack.redis is None:
        pytest.skip("this machine has no redis-server")
    url, with_redis = stack.redis.url, ready_screen(stack)
    monkeypatch.setattr(stack, "redis", None)

    assert f"  Events       in {url}" in with_redis
    assert "  Events       wait in the outbox: this machine has no Redis." in ready_screen(stack)


def test_the_admin_of_the_ready_screen_can_log_in(stack: Stack) -> None:
    account = {"email": stack.admin_email, "password": stack.admin_password}

    session = httpx.post(f"{stack.edge_url}/api/v1/sessions", json=account)
    users = httpx.get(
        f"{stack.edge_url}/api/v1/users", headers={"authorization": f"Bearer {session.json()['accessToken']}"}
    )

    assert (session.status_code, users.status_code) == (201, 200)


@pytest.mark.parametrize("name", ["admin", "keys_secret", "postgres/pgpass"])
def test_secrets_are_for_the_owner_only(stack: Stack, name: str) -> None:
    assert (stack.home.path / name).stat().st_mode & 0o777 == 0o600


def test_a_killed_replica_is_back_at_the_same_port(stack: Stack) -> None:
    replica = stack.replicas("user_svc")[0]
    port, pid = replica.port, replica.pid

    replica.kill()
    replica.wait_ready()

    assert replica.port == port
    assert replica.pid not in {pid, None}


def test_a_second_stack_in_the_same_home_is_refused(stack: Stack) -> None:
    with _up(stack.settings.home, free_port()) as second:
        out, err = second.communicate(timeout=30)

    assert (second.returncode, out) == (1, "")
    assert re.fullmatch(rf".* is in use by the stack with pid {os.getpid()}: .*\n", err)


def test_a_taken_port_leaves_nothing_running(stack: Stack, tmp_path: Path) -> None:
    with _up(tmp_path / "home", stack.settings.edge_port) as second:
        out, err = second.communicate(timeout=30)

    assert (second.returncode, out) == (1, "")
    assert re.fullmatch(r"port \d+ is taken: .*\n", err)
    assert not _processes_of(tmp_path)


def test_two_stacks_run_side_by_side_and_ctrl_c_stops_one(stack: Stack, first_run: FirstRun) -> None:
    assert first_run.exit_code == 0
    assert first_run.left_running == []
    assert stack.edge.process.pid


def test_a_stack_keeps_its_data_and_its_keys_from_run_to_run(first_run: FirstRun, second_run: SecondRun) -> None:
    # The token is still accepted: the keys are kept, and so is the secret that they are sealed with.
    assert second_run.found == first_run.user
    assert second_run.admin == first_run.admin


def test_an_interrupted_start_leaves_nothing_running(tmp_path: Path) -> None:
    with _up(tmp_path / "home", free_port()) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("  PostgreSQL")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert not _processes_of(tmp_path)


def test_leftovers_of_a_killed_stack_do_not_hinder_the_next(first_run: FirstRun, second_run: SecondRun) -> None:
    assert second_run.was_killed

    with _up(first_run.home, first_run.port) as process:
        _read_until_ready(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert not _processes_of(first_run.home)
