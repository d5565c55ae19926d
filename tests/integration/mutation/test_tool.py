"""`make mutants` on a repository of one module with one test."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

TILL = """\
def is_refused(quantity, largest):
    return quantity > largest
"""
# Leaves open what happens to as many as are allowed.
LAX = """\
from chassis.till import is_refused


def test_four_of_three_are_refused():
    assert is_refused(4, 3)
    assert not is_refused(2, 3)
"""
STRICT = LAX + "    assert not is_refused(3, 3)\n"
PYTEST = """\
[tool.pytest.ini_options]
pythonpath = ["."]
addopts = "--import-mode=importlib -p no:schemathesis -p no:hypothesispytest"  # each takes a start 0.3 s of CPU
asyncio_default_fixture_loop_scope = "function"
filterwarnings = ["error"]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "chassis").mkdir()
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "chassis" / "__init__.py").touch()
    (tmp_path / "chassis" / "till.py").write_text(TILL)
    (tmp_path / "tests" / "unit" / "test_till.py").write_text(LAX)
    (tmp_path / "pyproject.toml").write_text(PYTEST)
    (tmp_path / ".gitignore").write_text(".build/\n__pycache__/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def mutants(repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.mutation", *options, "chassis/till.py"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def status(repository: Path) -> str:
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout


def test_a_surviving_mutant_is_reported_with_its_line_and_diff(repository: Path) -> None:
    before = status(repository)

    done = mutants(repository)

    assert done.returncode == 1, done.stderr
    assert "chassis/till.py:2 in is_refused" in done.stdout
    assert "+    return quantity >= largest" in done.stdout
    assert "| chassis/till.py | 1 | 0 | 0 | 0 | 1 | 0 | 0.0 % |" in done.stdout
    assert status(repository) == before
    assert (repository / "chassis" / "till.py").read_text() == TILL


def test_a_survivor_is_run_again_when_its_tests_change_and_a_killed_mutant_is_not(repository: Path) -> None:
    mutants(repository)
    (repository / "tests" / "unit" / "test_till.py").write_text(STRICT)

    second, third = mutants(repository, "--survivors"), mutants(repository)

    for done in (second, third):
        assert done.returncode == 0, done.stdout + done.stderr
        assert "| chassis/till.py | 1 | 1 | 0 | 0 | 0 | 0 | 100.0 % |" in done.stdout
    assert "chassis/till.py:2 killed" in second.stdout
    assert "chassis/till.py:2 killed" not in third.stdout


def test_tests_that_fail_without_a_fault_are_left_out(repository: Path) -> None:
    (repository / "tests" / "unit" / "test_till.py").write_text(LAX + "    assert is_refused(3, 3)\n")

    done = mutants(repository)

    # It is left out of what covers the line, so nothing notices.
    assert done.returncode == 1
    assert "| 0 | 0 | 0 | 1 | 0 |" in done.stdout


def test_a_fault_that_makes_its_test_hang_is_noticed(repository: Path) -> None:
    (repository / "chassis" / "till.py").write_text(
        "def is_refused(quantity, largest):\n"
        "    while quantity > largest:\n"
        "        return True\n"
        "    while largest:\n"
        "        largest = largest - 1\n"
        "    return False\n"
    )

    done = mutants(repository)

    # `+` for `-`, and the loop never ends.
    assert "chassis/till.py:5 timed out" in done.stdout
