"""`make rename NAME=Acme`: the project's own name in place of Shop, in packages, paths, names and texts."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT
from devstack.scaffold.names import BadName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# In any of the three spellings, and not inside of another word.
_NAME: Final = re.compile(r"(?<![A-Za-z])(?:shop|Shop|SHOP)(?![a-z])")
# These files keep the old name: the work of others, the history, a list of passwords, and files that are made anew.
_LEFT: Final = re.compile(
    r"third_party/|CHANGELOG\.md$|LICENSE$|generated/|user_svc/common_passwords|tests/perf/peers/.*\.(pb\.go|mod|sum)$"
)
_MAX: Final = 12


def new_name(typed: str) -> str:
    """Return the name as a heading has it: `Acme`.

    Raises:
        BadName: it cannot be a package, a DNS name and a prefix of variables.
    """
    name = typed.strip()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or len(name) > _MAX:
        raise BadName(f"NAME={name}: use one word of at most {_MAX} letters and digits, such as Acme")
    if name.lower() == "shop":
        raise BadName(f"NAME={name}: that is the name it has")
    if importlib.util.find_spec(name.lower()) or (ROOT / name.lower()).exists():
        raise BadName(f"NAME={name}: a Python package or a folder has this name; choose another one")
    return name[0].upper() + name[1:]


def rename(name: str) -> int:
    """Replace the name in every tracked file and in the paths; return how many files have changed.

    Args:
        name: as new_name() returns it.
    """
    changed = 0
    for file in _tracked():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        replaced = _replaced(text, name)
        if replaced != text:
            file.write_text(replaced, encoding="utf-8")
            changed += 1
    for file in _tracked():
        path = file.relative_to(ROOT)
        moved = ROOT / _replaced(str(path), name)
        if moved != file:
            moved.parent.mkdir(parents=True, exist_ok=True)
            file.rename(moved)
            _remove_empty(file.parent)
    return changed


def _replaced(text: str, name: str) -> str:
    spellings = {"shop": name.lower(), "Shop": name, "SHOP": name.upper()}
    return _NAME.sub(lambda found: spellings[found[0]], text)


def _tracked() -> Iterator[Path]:
    command = ("git", "ls-files", "-z")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in listed.split("\0"):
        file = ROOT / path
        if path and not _LEFT.match(path) and file.is_file() and not file.is_symlink():
            yield file


def _remove_empty(folder: Path) -> None:
    while folder != ROOT and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
