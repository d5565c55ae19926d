"""The commands of the runbook, as it has them, in the composed system."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from devstack.settings import REPOSITORY
from tests.containers.engine import COMPOSE
from tests.support.documents import code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.containers.system import ComposedSystem

# They read, or do what does no harm: the others stop, replace or scale containers, which other tests do.
_HARMLESS = ("exec", "logs", "ps", "run")
pytestmark = pytest.mark.timeout(300)


def documented() -> Iterator[str]:
    """Yield each command of compose of the runbook, with its pipe."""
    for each in code():
        if each.where.startswith("docs/runbook"):
            lines = each.text.splitlines() if each.language != "span" else [each.text]
            yield from (
                line for line in lines if line.startswith(tuple(f"docker compose {verb}" for verb in _HARMLESS))
            )


def test_each_command_of_compose_does_what_it_says(system: ComposedSystem, tmp_path: Path) -> None:
    shim = tmp_path / "docker"
    # There is no terminal here.
    shim.write_text(f'#!/bin/sh\nshift\n[ "$1" != exec ] || {{ shift; set -- exec -T "$@"; }}\nexec {COMPOSE} "$@"\n')
    shim.chmod(0o755)
    surroundings = {
        **system.environment(),
        "COMPOSE_PROJECT_NAME": system.project,
        "COMPOSE_FILE": ":".join(str(REPOSITORY / file) for file in system.files),
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
    }
    commands = sorted(set(documented()))

    failed = {}
    for command in commands:
        done = subprocess.run(
            # A request with that id was never made.
            ["bash", "-euc", re.sub(r" \| grep .*", "", command)],
            env=surroundings,
            input="a password of Grace's\n"
            if "admin create" in command
            else "SELECT 1\n"
            if "psql" in command
            else "PING\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            failed[command] = done.stdout + done.stderr

    assert len(commands) > 12
    assert failed == {}
