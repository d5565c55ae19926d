from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devstack.errors import ProcessFailed
from devstack.process import Command, Process
from devstack.settings import REPOSITORY
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

FOREVER = "import time; time.sleep(600)"


def _process(
    folder: Path, code: str, *, stop_timeout_s: float = 5, report: Callable[[str], None] = lambda _: None
) -> Process:
    command = Command(
        name="child",
        argv=(sys.executable, "-u", "-c", code),
        env=dict(os.environ),
        cwd=folder,
        log=folder / "child.log",
        stop_timeout_s=stop_timeout_s,
    )
    return Process(command, report=report)


def _is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_killed_child_is_restarted_and_reported(tmp_path: Path) -> None:
    told: list[str] = []
    process = _process(tmp_path, FOREVER, report=told.append)
    process.start()
    process.restarts = True
    first = process.pid

    process.kill()
    until(lambda: process.pid is not None)

    assert process.pid != first
    assert told == ["child was ended by SIGKILL; it starts again in 1 s"]
    process.stop()


def test_a_killed_child_stays_dead_if_restarts_are_off(tmp_path: Path) -> None:
    process = _process(tmp_path, FOREVER)
    process.start()

    process.kill()

    assert process.pid is None
    process.stop()


def test_a_child_that_waits_to_come_back_can_be_started_at_once(tmp_path: Path) -> None:
    process = _process(tmp_path, FOREVER)
    process.start()
    process.restarts = True
    process.kill()

    process.start()

    assert process.pid is not None
    process.stop()


def test_a_child_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); signal.pause()"
    process = _process(tmp_path, ignoring, stop_timeout_s=0.2)
    process.start()
    until(lambda: (tmp_path / "child.log").read_text() == "ready\n")

    process.stop()

    assert process.pid is None


def test_a_child_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    process = _process(tmp_path, "print('no such table'); raise SystemExit(3)")
    process.start()

    with pytest.raises(ProcessFailed, match=r"child ended with exit code 3.*child\.log:\n    no such table"):
        process.wait_end(10)


def test_a_program_that_is_missing_is_a_failure_like_any_other(tmp_path: Path) -> None:
    process = Process(Command(name="child", argv=("/no/such",), env={}, cwd=tmp_path, log=tmp_path / "child.log"))
    process.start()

    with pytest.raises(ProcessFailed, match="No such file"):
        process.wait_end(10)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends the children of who is killed")
def test_children_do_not_survive_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent_code = f"""
import os, pathlib, sys, time
from devstack.process import Command, Process
here = pathlib.Path({str(tmp_path)!r})
argv = (sys.executable, "-c", {FOREVER!r})
process = Process(Command(name="child", argv=argv, env=dict(os.environ), cwd=here, log=here / "child.log"))
process.start()
print(process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent_code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        # The bond is made by setpriv just before it becomes the child.
        until(lambda: b"setpriv" not in Path(f"/proc/{child}/cmdline").read_bytes())
        assert _is_running(child)

        parent.send_signal(signal.SIGKILL)

    until(lambda: not _is_running(child))
