"""Faults in what is no Python: the edge, the chart, the migrations. configuration.toml has them, written by hand.

Each says which text of which file becomes which, and which command must fail then.
"""

from __future__ import annotations

import shlex
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutation.workspace import Workspace

FAULTS: Final = Path(__file__).with_name("configuration.toml")
_TIMEOUT_S: Final = 590.0


class FaultUnknown(Exception):
    """A fault cannot be planted: the text that it changes is not in its file exactly once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One of them.

    Attributes:
        what: it is, in a few words.
        file: its path.
        old: the text, once in the file.
        new: what stands there instead.
        test: the arguments to pytest of the tests that must notice.
    """

    what: str
    file: str
    old: str
    new: str
    test: str

    def planted_in(self, text: str) -> str:
        """Return the file's text with the fault.

        Raises:
            FaultUnknown: the old text is not there once.
        """
        if text.count(self.old) != 1:
            raise FaultUnknown(
                f"configuration.toml, {self.what}: {self.file} has its old text {text.count(self.old)} times. "
                "Correct the entry or remove it."
            )
        return text.replace(self.old, self.new)


def read(path: Path = FAULTS) -> list[Fault]:
    """Return the faults of a file.

    Raises:
        TypeError: one lacks a field, or has one too many.
    """
    return [Fault(**entry) for entry in tomllib.loads(path.read_text()).get("fault", [])]


def run(workspace: Workspace, faults: Sequence[Fault] = ()) -> str:
    """Run each fault's tests and print the result; return the surviving faults, as text."""
    survived: list[str] = []
    known = list(faults) or read()
    texts = [
        fault.planted_in((workspace.root / fault.file).read_text()) for fault in known
    ]  # each exists, or none runs
    for test in dict.fromkeys(fault.test for fault in known):
        if _fails(workspace, test):
            raise FaultUnknown(f"pytest {test} fails without a fault, so it would notice every one")
    for fault, text in zip(known, texts, strict=True):
        with workspace.planted(fault.file, text):
            is_noticed = _fails(workspace, fault.test)
        print(f"{'killed  ' if is_noticed else 'survived'} {fault.file}: {fault.what}", flush=True)
        if not is_noticed:
            survived.append(f"{fault.file}: {fault.what}: pytest {fault.test} does not notice")
    print(f"\n{len(known)} faults, {len(known) - len(survived)} killed, {len(survived)} survived")
    return "\n".join(survived)


def _fails(workspace: Workspace, test: str) -> bool:
    command = [".venv/bin/pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(test)]
    try:
        code = subprocess.run(
            command, cwd=workspace.root, capture_output=True, timeout=_TIMEOUT_S, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return True
    if code not in {0, 1, 2}:
        raise FaultUnknown(f"pytest {test} ends with {code}: it finds no such test")
    return code != 0
