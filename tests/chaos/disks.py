"""Small disks, to be filled: file systems in memory, which only root can mount."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from devstack.privileges import chown_to_unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# The smallest unit of a file system in memory.
_PAGE_BYTES: Final = 4096


class SmallDisk:
    """A file system of its own that can be full."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no byte free when the block begins, and give all of it back when it ends."""
        try:
            # Not by the size of what is free: the server writes meanwhile.
            with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(_PAGE_BYTES))
            yield
        finally:
            self._ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, *, mib: int) -> Iterator[SmallDisk]:
    """Mount an empty file system of this size on the folder, which PostgreSQL may write to, while the block runs."""
    folder.mkdir(mode=0o700, parents=True)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", folder)
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"run it as root on a machine or in a privileged container, to mount a small disk: {error.stderr}")
    try:
        chown_to_unprivileged(folder)
        yield SmallDisk(folder)
    finally:
        # Lazily: who still has a file open there is about to end.
        subprocess.run(["umount", "--lazy", folder], check=True)
