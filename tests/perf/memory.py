"""The memory of everything that `make run` starts."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

import httpx

from devstack.errors import StackError
from devstack.home import Home
from devstack.ports import LOOPBACK
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from tests.perf import tools
from tests.perf.cpu import processes_below
from tests.perf.peer_processes import free_port
from tests.support.logins import admins_token_at

_CALLS: Final = 50
_RESTS_S: Final = 5.0


def of_make_run() -> tuple[dict[str, float], dict[str, float]]:
    """Return the memory of each kind of process in MB, shortly after a start and some calls: resident, proportional.

    Memory that processes share, which most of PostgreSQL's is, counts for each of them in the first, as in `ps`, and is
    divided among them in the second.
    """
    home = tools.BENCH / "make-run"
    Home(home).remove()
    edge = f"http://{LOOPBACK}:{(port := free_port())}"
    own = {"SHOP_HOME": str(home), "SHOP_EDGE_PORT": str(port), "SHOP_EDGE_TLS_PORT": "0", "SHOP_DRAIN_S": "0"}
    command = Command(
        name="make run",
        argv=(sys.executable, "-m", "devstack", "up"),
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), **own},
        cwd=REPOSITORY,
        log=tools.BENCH / "make-run.log",
        stop_timeout_s=60,
    )
    process = Process(command, hooks=Hooks(is_ready=lambda: _is_ready(edge, home)))
    try:
        process.start()
        process.wait_ready(90)
        _call(edge, home)
        if process.pid is None:
            raise StackError(f"`make run` ended: see {command.log}")
        resident: defaultdict[str, float] = defaultdict(float)
        proportional: defaultdict[str, float] = defaultdict(float)
        for pid in processes_below(process.pid):
            with contextlib.suppress(OSError):  # it ended meanwhile
                used = _used_mb(pid)
                resident[_kind_of(pid)] += used["Rss"]
                proportional[_kind_of(pid)] += used["Pss"]
        return dict(resident), dict(proportional)
    finally:
        process.stop()


def _is_ready(edge: str, home: Path) -> bool:
    try:
        admins_token_at(edge, home)
    except (OSError, httpx.HTTPError):
        return False
    return True


def _call(edge: str, home: Path) -> None:
    """Make some calls of each kind, fewer than the limit, so that everything that a replica loads late is loaded."""
    price = {"units": "4", "nanos": 500_000_000}
    order = {"currencyCode": "EUR", "items": [{"productId": "tea", "quantity": 2, "unitPrice": price}]}
    headers = {"authorization": f"Bearer {admins_token_at(edge, home)}"}
    with httpx.Client(base_url=edge, headers=headers, timeout=30, trust_env=False) as http:
        for _ in range(_CALLS // 2):
            placed = http.post("/api/v1/orders", json=order).raise_for_status().json()
            http.get(f"/api/v1/users/{placed['userId']}").raise_for_status()
    time.sleep(_RESTS_S)  # until the events of the calls are applied


def _used_mb(pid: int) -> dict[str, float]:
    """Return the sizes that proc(5) lists in `smaps_rollup`, by name."""
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()[1:]  # the first has the addresses
    return {line.partition(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def _kind_of(pid: int) -> str:
    """Return what a process is: `user_svc serve`, `postgres`, `envoy`."""
    try:
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return "ended"
    if "-m" in words:
        return " ".join(words[words.index("-m") + 1 :][:2])
    return Path(words[0].partition(":")[0].partition(" ")[0]).name or "other"
