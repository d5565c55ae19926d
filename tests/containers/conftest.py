"""One composed system for the whole suite, and what the tests of tests/e2e ask for, so that they run here too."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from chassis.service import services
from devstack import container_secrets
from devstack.settings import REPOSITORY
from tests.chaos.report import Report
from tests.containers.engine import engine
from tests.containers.system import WORKERS, ComposedSystem
from tests.e2e.callers import Edge
from tests.e2e.world import World
from tests.support.guards import facts
from tests.support.logins import log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[_REPORT].lines:
        terminalreporter.section("containers")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def engine_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engine(tmp_path_factory.mktemp("engine") / "podman.sock") as address:
        yield address


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    container_secrets.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def changes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compose file with what tests change: settings, and how long a lost answer of the name server costs.

    A busy machine loses one now and then; it costs one second instead of five.
    """
    patience = {"dns_opt": ["timeout:1", "attempts:5"]}
    servers = {each.host: {**patience, "environment": dict(facts("settings", each.name))} for each in services()}
    file = tmp_path_factory.mktemp("compose") / "compose.test.yaml"
    file.write_text(json.dumps({"services": {**servers, **dict.fromkeys(WORKERS, patience)}}))
    return file


@pytest.fixture(scope="session")
def system(engine_address: str, secrets: Path, report: Report, changes: Path) -> Iterator[ComposedSystem]:
    system = ComposedSystem(
        project=os.environ.get("SHOP_TEST_PROJECT", "shop-test"),
        engine=engine_address,
        secrets=secrets,
        files=(REPOSITORY / "docker" / "compose.yaml", changes),
    )
    try:
        started = time.monotonic()
        system.up()
        report.say(f"compose up to ready: {time.monotonic() - started:.0f} s")
        yield system
    finally:
        system.down()


@pytest.fixture(scope="session")
def admin_token(system: ComposedSystem) -> str:
    """The access token of the admin."""
    return log_in(system.edge_url, email=system.admin_email, password=system.admin_password)["accessToken"]


@pytest.fixture(scope="session")
def edge(system: ComposedSystem, admin_token: str) -> Iterator[Edge]:
    with Edge(system.edge_url, admin_token) as edge:
        yield edge


@pytest.fixture(scope="session")
def world(system: ComposedSystem, edge: Edge) -> World:
    return World(system, edge)
