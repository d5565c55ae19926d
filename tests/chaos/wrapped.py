"""PostgreSQL started by a command of a test's, which can be another one at each start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devstack.postgres import PostgresServer
from devstack.postgres_cluster import find_binaries

if TYPE_CHECKING:
    from pathlib import Path


class WrappedPostgres(PostgresServer):
    """A server whose program is started by `wrapper`.

    Attributes:
        wrapper: words of a shell before the program: `env A=b`, `strace -D`. They must not leave a process in between.
    """

    def __init__(self, home: Path, *, wrapper: str = "") -> None:
        binaries = find_binaries()
        folder = home / "bin"
        folder.mkdir(parents=True)
        for program in binaries.iterdir():
            if program.name != "postgres":
                (folder / program.name).symlink_to(program)
        self._words = folder / "wrapper"
        self.wrap(wrapper)
        script = folder / "postgres"
        script.write_text(f'#!/bin/sh\nexec $(cat {self._words}) {binaries / "postgres"} "$@"\n')
        script.chmod(0o755)
        super().__init__(home / "server", binaries=folder)

    def wrap(self, wrapper: str) -> None:
        """Start the program by these words from the next start on."""
        self._words.write_text(wrapper)
