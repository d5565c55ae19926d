"""A cluster under Patroni and a stack whose services reach it by the URL of all its hosts."""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from devstack.services import SERVICES
from devstack.settings import Settings
from devstack.stack import Stack
from tests.failover.cluster import MISSING, Cluster, find_etcd, running_cluster
from tests.support.logins import NO_LIMITS
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLE = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[_TABLE]:
        terminalreporter.section("failovers")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> list[str]:
    """The table that is printed at the end: one line for each failover."""
    return pytestconfig.stash[_TABLE]


@pytest.fixture(scope="session")
def rounds() -> int:
    """How many failovers."""
    return int(os.environ.get("ROUNDS", "3"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    etcd = find_etcd()
    if etcd is None:
        pytest.skip(MISSING)
    with running_cluster(etcd) as cluster:
        cluster.create_databases()
        yield cluster


@pytest.fixture(scope="session")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = Settings(
        home=tmp_path_factory.mktemp("failover") / "home",
        edge_port=free_port(),
        database_urls={each.database: SecretStr(cluster.url(each.database, role=each.name)) for each in SERVICES},
        keys_secret=SecretStr(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
        **NO_LIMITS,
    )
    # Twenty failovers take longer than an access token lives; and an open circuit would be most of a gap.
    extra_env = {
        "user_svc": {"SESSION_ACCESS_LIFETIME_S": "3600", "ARGON2_MEMORY_KIB": "64"},
        "order_svc": {"BREAKER_RESET_TIMEOUT_S": "2"},
    }
    with Stack(settings, extra_env=extra_env) as stack:
        try:
            yield stack
        finally:
            stack.kill()
