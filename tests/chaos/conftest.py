"""Stacks to break, and a report of what breaking them did."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

import pytest

from devstack.services import SERVICES
from devstack.settings import Settings
from devstack.stack import Stack
from tests.chaos.report import Report
from tests.support.logins import NO_LIMITS
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chassis.service import Service
    from devstack.postgres import PostgresServer

ROUNDS: Final = int(os.environ.get("CHAOS_ROUNDS", "1"))

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[_REPORT].lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def rounds() -> range:
    """How often a test repeats its fault: once for everyday, CHAOS_ROUNDS times for a thorough look."""
    return range(ROUNDS)


@contextlib.contextmanager
def running_stack(
    home: Path,
    *,
    drain_s: float = 3,
    extra_env: Mapping[str, Mapping[str, str]] | None = None,
    postgres: PostgresServer | None = None,
) -> Iterator[Stack]:
    """Run a stack with the product's defaults: drain, health checks, two replicas of each service.

    Args:
        home: its folder.
        drain_s: how long a replica serves on after SIGTERM.
        extra_env: as the stack's.
        postgres: a server that runs, instead of the stack's own.
    """
    databases = {service.database: _database_of(service, postgres) for service in SERVICES}
    settings = Settings(home=home, edge_port=free_port(), drain_s=drain_s, **NO_LIMITS, database_urls=databases)
    stack = Stack(settings, extra_env=extra_env or {})
    with stack:
        try:
            yield stack
        finally:
            stack.kill()  # no caller is left: no need to drain


def _database_of(service: Service, postgres: PostgresServer | None) -> str | None:
    """Return the URL of the service's database, which is made; None without a server."""
    if postgres is None:
        return None
    postgres.create_private_database(service.database, role=service.name)
    return postgres.url(service.database, role=service.name)
