"""Secrets that are made once and kept: passwords of PostgreSQL, in the file format that psql reads too, and others."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

from devstack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class PasswordFile:
    """A libpq password file, readable by its owner only, that grows a random password for every role asked for."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def password_of(self, role: str) -> str:
        """Return the role's password: the same one for as long as the file exists."""
        passwords = self._read()
        if role not in passwords:
            # Hex, so that it needs no escaping in this file, in a URL or in SQL.
            passwords[role] = secrets.token_hex(24)
            self._write(passwords)
        return passwords[role]

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        entries = (line.split(":") for line in self.path.read_text().splitlines())
        return {role: password for _host, _port, _database, role, password in entries}

    def _write(self, passwords: dict[str, str]) -> None:
        # The port differs from start to start, and who may enter which database is the server's business.
        lines = (f"{LOOPBACK}:*:*:{role}:{password}\n" for role, password in passwords.items())
        unfinished = self.path.with_suffix(".new")
        write_secret(unfinished, "".join(lines))
        unfinished.replace(self.path)


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in the file, which is made if need be."""
    if not path.exists():
        unfinished = path.with_suffix(".new")
        write_secret(unfinished, f"{make()}\n")
        unfinished.replace(path)
    return path.read_text().strip()


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
