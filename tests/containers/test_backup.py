"""The backup and restore of docs/operations.md, word for word."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from devstack.settings import REPOSITORY
from tests.chaos.traffic import under_load
from tests.chaos.validation import validate
from tests.containers.engine import COMPOSE
from tests.support.logins import log_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.report import Report
    from tests.containers.system import ComposedSystem

OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a `docker` that knows `docker compose`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shim = folder / "docker"
    shim.write_text(f'#!/bin/sh\nshift\nexec {COMPOSE} "$@"\n')
    shim.chmod(0o755)
    return folder


def _commands_below(heading: str) -> str:
    found = re.search(rf"^### {heading}\n.*?^```sh\n(.*?)^```", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def _run(commands: str, *, system: ComposedSystem, docker: Path) -> None:
    compose = {
        "COMPOSE_PROJECT_NAME": system.project,
        "COMPOSE_FILE": ":".join(str(REPOSITORY / file) for file in system.files),
    }
    path = f"{docker}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=docker.parent,
        env={**system.environment(), **compose, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_writes_acknowledged_before_a_backup_are_there_after_a_restore(
    system: ComposedSystem, admin_token: str, docker: Path, report: Report
) -> None:
    async with under_load(system.edge_url, token=admin_token) as traffic:
        await traffic.goes_on()
    _run(_commands_below("Back up"), system=system, docker=docker)

    system.down()
    _run(_commands_below("Restore"), system=system, docker=docker)

    findings = validate(traffic.record, orders_url=system.database_url("orders"))
    report.add("backup, wipe, restore", traffic.record, findings)
    assert traffic.record.placed
    assert findings.is_clean, findings
    assert log_in(system.edge_url, email=system.admin_email, password=system.admin_password)
    async with under_load(system.edge_url, token=admin_token) as traffic:
        await traffic.goes_on()
    assert traffic.record.failed_outcomes() == {}
