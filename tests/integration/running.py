"""Servers that another process has started and ends: for who runs a few tests a thousand times (tests/mutation)."""

from __future__ import annotations

import os
from pathlib import Path

from devstack.passwords import PasswordFile
from devstack.postgres import PostgresServer
from devstack.redis import RedisServer


class RunningPostgres(PostgresServer):
    """The PostgreSQL that TEST_POSTGRES names, `port:folder`, with its databases to copy."""

    def __init__(self, port: int, home: Path) -> None:
        self.port = port  # type: ignore[misc]  # another process has chosen it
        self.passwords = PasswordFile(home / "pgpass")  # type: ignore[misc]  # and these


class RunningRedis(RedisServer):
    """The Redis at the port of TEST_REDIS."""

    def __init__(self, port: int) -> None:
        self.port = port  # type: ignore[misc]  # another process has chosen it


def running_postgres() -> RunningPostgres | None:
    """Return the server that the environment names, if it names one."""
    port, _, home = os.environ.get("TEST_POSTGRES", "").partition(":")
    return RunningPostgres(int(port), Path(home)) if port else None


def running_redis() -> RunningRedis | None:
    """Return the server that the environment names, if it names one."""
    port = os.environ.get("TEST_REDIS", "")
    return RunningRedis(int(port)) if port else None
