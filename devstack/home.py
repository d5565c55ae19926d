"""The folder of one stack: its data, passwords and logs, and a lock, so that only one stack uses it."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from devstack.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK: Final = "stack.lock"


class Home:
    """The paths in the folder of one stack."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self.logs: Final = path / "log"
        self.postgres: Final = path / "postgres"
        self.redis: Final = path / "redis"
        self.tls: Final = path / "tls"
        self.edge_config: Final = path / "envoy.yaml"
        self.edge_secrets: Final = path / "envoy-secrets"
        self.keys_secret: Final = path / "keys_secret"
        self.admin: Final = path / "admin"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Lock the folder while the block runs; create it if it does not exist.

        The kernel releases the lock when this process ends, even by kill -9.

        Raises:
            StackError: another stack uses the folder, it holds files that are not a stack's, or it is not writable.
        """
        try:
            self._create()
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StackError(
                f"{self.path} cannot be used ({error.strerror}): set SHOP_HOME to a folder of yours"
            ) from None
        try:
            self._lock(lock)
            self.logs.mkdir(exist_ok=True)
            yield
        finally:
            os.close(lock)

    def remove(self) -> bool:
        """Remove the folder and return whether it existed.

        Raises:
            StackError: a stack uses the folder, it holds files that are not a stack's, or it cannot be removed.
        """
        if not self.path.exists():
            return False
        with self.claimed():
            try:
                shutil.rmtree(self.path)
            except OSError as error:
                raise StackError(f"{error.filename} cannot be removed: {error.strerror}") from None
        return True

    def _create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `clean` removes this folder with everything in it, so refuse a folder that holds other files.
        if not (self.path / _LOCK).exists() and any(self.path.iterdir()):
            raise StackError(f"{self.path} holds files that are not a stack's: set SHOP_HOME to an empty folder")

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode().strip()
            raise StackError(
                f"{self.path} is in use by the stack with pid {pid}: stop that one (kill {pid}), "
                "or set SHOP_HOME and SHOP_EDGE_PORT to run a second one"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
