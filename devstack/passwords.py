"""Secrets that are made once and kept in files, among them PostgreSQL's passwords in libpq's format."""

from __future__ import annotations

import base64
import os
import secrets
from typing import TYPE_CHECKING, Final

from devstack.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class PasswordFile:
    """A libpq password file, readable by its owner only. A role gets a random password when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def password_of(self, role: str) -> str:
        """Return the role's password; it stays the same as long as the file exists."""
        passwords = self._read()
        if role not in passwords:
            passwords[role] = new_password()
            self._write(passwords)
        return passwords[role]

    def _read(self) -> dict[str, str]:
        if not self.path.exists():
            return {}
        entries = (line.split(":") for line in self.path.read_text().splitlines())
        return {role: password for _host, _port, _database, role, password in entries}

    def _write(self, passwords: dict[str, str]) -> None:
        # `*` for port and database: the port changes at each start, and the server decides about databases.
        lines = (f"{LOOPBACK}:*:*:{role}:{password}\n" for role, password in passwords.items())
        unfinished = self.path.with_suffix(".new")
        write_secret(unfinished, "".join(lines))
        unfinished.replace(self.path)


def new_password() -> str:
    """Return a random password."""
    # Hex, so that it needs no escaping in a URL, in SQL, in redis.conf or in libpq's file.
    return secrets.token_hex(24)


def new_key() -> str:
    """Return a random key for Fernet."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def kept_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in the file; if the file is missing, make it first."""
    if not path.exists():
        unfinished = path.with_suffix(".new")
        write_secret(unfinished, f"{make()}\n")
        unfinished.replace(path)
    return path.read_text().strip()


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it is created with that mode, before its first byte."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
