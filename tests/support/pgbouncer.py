"""The real PgBouncer between the services and PostgreSQL, in transaction mode, with fewer sessions than connections."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import psycopg
import pytest
from typing_extensions import override

from devstack.ports import LOOPBACK, ReservedPort
from devstack.postgres_cluster import SUPERUSER
from devstack.privileges import chown_to_unprivileged
from devstack.process import Command, Hooks, Process
from devstack.services import SERVICES
from devstack.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devstack.postgres import PostgresServer
    from devstack.settings import Settings

MISSING: Final = "PgBouncer is missing: apt-get install pgbouncer"


def find_pgbouncer() -> Path | None:
    """Return PgBouncer's program; None if this machine has none."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    return Path(found) if found else None


class PgBouncer:
    """One pooler on the loopback interface.

    Attributes:
        port: where it listens, the same for the life of this object.
        process: the pooler as a supervised child.
    """

    def __init__(self, program: Path, home: Path, postgres: PostgresServer, **settings: Any) -> None:
        """Prepare a pooler before a server.

        Args:
            program: pgbouncer.
            home: a folder, which is created.
            postgres: the server, with all its roles.
            settings: beside those of every test, as in its `[pgbouncer]`.
        """
        home.mkdir(parents=True)
        chown_to_unprivileged(home)
        self._reserved: Final = ReservedPort()
        self._postgres: Final = postgres
        self.port: Final = self._reserved.number
        configured = {
            "listen_addr": LOOPBACK,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            # Fewer than connections: so that one connection's transactions have sessions of others.
            "default_pool_size": 3,
            "max_client_conn": 500,
            # By default a server that did not answer is left alone for 15 s.
            "server_login_retry": 1,
            "auth_type": "scram-sha-256",
            "auth_file": home / "users.txt",
            "admin_users": SUPERUSER,
            **settings,
        }
        lines = ["[databases]", f"* = host={LOOPBACK} port={postgres.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in configured.items()]
        (home / "pgbouncer.ini").write_text("\n".join(lines))
        (home / "users.txt").write_text("")
        self._users: Final = home / "users.txt"
        command = Command(
            name="PgBouncer",
            argv=(str(program), str(home / "pgbouncer.ini")),
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=home,
            log=home / "pgbouncer.log",
            refuses_root=True,
        )
        self.process: Final = Process(command, hooks=Hooks(before_start=self._write_users, is_ready=self._answers))

    def url(self, database: str, *, role: str = SUPERUSER) -> str:
        """Return where the role finds the database behind the pooler."""
        return self._postgres.url(database, role=role).replace(f":{self._postgres.port}/", f":{self.port}/")

    def __enter__(self) -> Self:
        """Start it and return when it answers."""
        self.process.start()
        self.process.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and give its port back."""
        self.process.stop()
        self._reserved.release()

    def _write_users(self) -> None:
        roles = (SUPERUSER, *(service.name for service in SERVICES))
        self._users.write_text("".join(f'"{role}" "{self._postgres.passwords.password_of(role)}"\n' for role in roles))

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


class PooledStack(Stack):
    """A stack whose services reach their databases through PgBouncer only; its migrations reach PostgreSQL itself.

    Attributes:
        pooler: PgBouncer, which is started again if it ends.
    """

    pooler: PgBouncer

    def __init__(self, program: Path, settings: Settings, *, extra_env: Mapping[str, Mapping[str, str]]) -> None:
        self._program = program
        self._env = {service.name: dict(extra_env.get(service.name, {})) for service in SERVICES}
        super().__init__(settings, extra_env=self._env)

    @override
    def database_url(self, database: str) -> str:
        own = super().database_url(database)
        return own.replace(f":{self._own_postgres().port}/", f":{self.pooler.port}/")

    @override
    def _start_postgres(self) -> None:
        super()._start_postgres()
        self.pooler = PgBouncer(self._program, self.home.postgres / "pgbouncer", self._own_postgres())
        self._resources.enter_context(self.pooler)
        self._stages.add("PgBouncer", [self.pooler.process])
        for service in SERVICES:
            self._env[service.name]["DATABASE_DIRECT_URL"] = super().database_url(service.database)


def pooled_stack(settings: Settings, *, extra_env: Mapping[str, Mapping[str, str]]) -> PooledStack:
    """Return a stack behind PgBouncer; the test that asks for it is skipped if this machine has none."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip(MISSING)
    return PooledStack(program, settings, extra_env=extra_env)
