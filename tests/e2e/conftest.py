"""One system for the whole suite: PostgreSQL, two replicas of each service, Envoy. A test that breaks it repairs it."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest

from chassis.service import services
from devstack.settings import Settings
from devstack.stack import Stack
from tests.e2e.callers import Edge
from tests.e2e.world import World
from tests.support.guards import facts
from tests.support.logins import NO_LIMITS, admins_token
from tests.support.pgbouncer import pooled_stack
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Not what they are in production, where a password hash takes much CPU and an open circuit stays open for a minute.
_QUICK = {service.name: dict(facts("settings", service.name)) for service in services()}


def stack_of(settings: Settings, *, extra_env: Mapping[str, Mapping[str, str]]) -> Stack:
    """Return a stack, which reaches its databases through PgBouncer if POOLED is set."""
    make = pooled_stack if "POOLED" in os.environ else Stack
    return make(settings, extra_env=extra_env)


@pytest.fixture(scope="session")
def page_port() -> int:
    """The port of http://localhost whose pages may call the edge."""
    return free_port()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, page_port: int) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack")
    origins = (f"http://localhost:{page_port}",)
    settings = Settings(edge_port=free_port(), home=home, drain_s=0.2, cors_origins=origins, **NO_LIMITS)
    with stack_of(settings, extra_env=_QUICK) as stack:
        _do_not_wait_for_the_disk(stack)
        yield stack
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def edge(stack: Stack) -> Iterator[Edge]:
    with Edge(stack.edge_url, admins_token(stack)) as edge:
        yield edge


@pytest.fixture(scope="session")
def world(stack: Stack, edge: Edge) -> World:
    return World(stack, edge)


def _do_not_wait_for_the_disk(stack: Stack) -> None:
    assert stack.postgres
    with contextlib.closing(psycopg.connect(stack.postgres.superuser_url(), autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
