"""A clone of the repository, to change as one likes."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from devstack.settings import REPOSITORY
from tests.support.own_stubs import OWN_STUBS

if TYPE_CHECKING:
    from pathlib import Path

_INSTALLED = (".venv", "node_modules", ".tools")
# So that make takes what is shared with this tree for up to date, and installs nothing into it.
_NEVER_OLD_S = time.time() + 24 * 3600


class Clone:
    """A clone of the last commit, with what is installed here.

    Attributes:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(root)], check=True)
        for name in _INSTALLED:
            (root / name).mkdir()
            for path in (REPOSITORY / name).iterdir() if (REPOSITORY / name).exists() else ():
                (root / name / path.name).symlink_to(path)
            (root / name / "ready").unlink(missing_ok=True)
            (root / name / "ready").touch()
            os.utime(root / name / "ready", (_NEVER_OLD_S, _NEVER_OLD_S))
        (root / ".venv" / "sitecustomize.py").write_text(OWN_STUBS)
        with (root / ".git" / "info" / "exclude").open("a") as excluded:
            excluded.write("\n".join(("", *_INSTALLED)))
        self.run("git", "config", "user.name", "Test")
        self.run("git", "config", "user.email", "test@example.com")

    @property
    def env(self) -> dict[str, str]:
        """The environment of its commands."""
        python_path = f"{self.root / '.venv'}:{self.root}:{self.root / 'generated'}"
        path = f"{self.root / '.venv' / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PYTHONPATH": python_path, "PATH": path}

    def run(self, *command: str, fails: bool = False, timeout_s: float = 600) -> str:
        """Return what a command prints."""
        done = subprocess.run(
            command, cwd=self.root, env=self.env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert bool(done.returncode) == fails, done.stdout[-8000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    def commit(self, subject: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", subject)

    def head(self) -> str:
        return self.run("git", "rev-parse", "HEAD^{tree}")
