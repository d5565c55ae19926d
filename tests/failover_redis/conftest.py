"""A table of what failovers did, at the end of the run."""

from __future__ import annotations

import os

import pytest

_TABLE = pytest.StashKey[list[tuple[str, ...]]]()
_COLUMNS = ("kind", "times", "events", "lost", "doubled", "inverted", "gone from Redis", "longest pause")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not (rows := config.stash[_TABLE]):
        return
    terminalreporter.section("failovers")
    for row in (_COLUMNS, tuple("---" for _ in _COLUMNS), *rows):
        terminalreporter.line(f"| {' | '.join(row)} |")


@pytest.fixture
def table(pytestconfig: pytest.Config) -> list[tuple[str, ...]]:
    """The rows of the table, to add one."""
    return pytestconfig.stash[_TABLE]


@pytest.fixture(scope="session")
def rounds() -> int:
    """How often a test repeats its failover."""
    return int(os.environ.get("ROUNDS", "1"))
