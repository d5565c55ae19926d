"""A copy of the repository to plant faults into: the work tree itself is never written to."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME: Final = Path(".build", "mutation").absolute()
# Installed folders outside of git, shared with the copy.
_INSTALLED: Final = (".venv", "node_modules", ".tools")


class Workspace:
    """The copy.

    Attributes:
        root: its folder.
    """

    def __init__(self, root: Path, *, repository: Path) -> None:
        """Bring the copy up to date with the work tree, committed or not."""
        self.root: Final = root.absolute()
        root = self.root
        self._changes = 0
        root.mkdir(parents=True, exist_ok=True)
        files = _files_of(repository)
        for gone in set(_files_in(root)) - files:
            (root / gone).unlink()
        for name in files:
            _refresh(repository / name, root / name)
        for name in _INSTALLED:
            if (repository / name).exists() and not (root / name).exists():
                (root / name).symlink_to(repository / name)

    @contextmanager
    def planted(self, name: str, text: str) -> Iterator[None]:
        """Have another text in a file of the copy, for the time of the block."""
        path = self.root / name
        original, times = path.read_bytes(), path.stat()
        path.write_text(text)
        # Python's cache goes by a file's size and its time in whole seconds: each text has a time of its own.
        self._changes += 1
        os.utime(path, (times.st_atime, int(times.st_mtime) + self._changes))
        try:
            yield
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _files_of(repository: Path) -> set[str]:
    """Return what git has or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return set(subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout.splitlines())


def _files_in(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".hypothesis") and name != "__pycache__"]
        folders[:] = [name for name in folders if not (Path(folder) / name).is_symlink()]
        yield from (str((Path(folder) / name).relative_to(root)) for name in names)


def _refresh(source: Path, target: Path) -> None:
    if not source.is_file():
        target.unlink(missing_ok=True)  # removed from the work tree, and not yet from git
    elif not target.exists() or target.read_bytes() != source.read_bytes():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
