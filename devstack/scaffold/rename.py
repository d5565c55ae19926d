"""`make rename NAME=Acme`: the project's own name in place of Shop, in packages, paths, names and texts."""

from __future__ import annotations

import keyword
import re
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT
from devstack.scaffold.names import BadName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NOW: Final = "Shop"
# These files keep the old name: the work of others, the history, a list of passwords, and files that are made anew.
_LEFT: Final = re.compile(
    r"third_party/|CHANGELOG\.md$|LICENSE$|generated/|user_svc/common_passwords|tests/perf/peers/.*\.(pb\.go|mod|sum)$"
)
_MAX: Final = 12
# It stands in texts about this command.
_EXAMPLE: Final = "Acme"
FORMATTING: Final = (
    # The new name sorts differently.
    ("ruff", "check", "--quiet", "--select", "I,RUF022,RUF023", "--fix"),
    ("ruff", "format", "--quiet"),
    # Comments were wrapped for a shorter name.
    ("ruff", "check", "--quiet", "--select", "E501", "--add-noqa"),
    ("buf", "format", "--write", "protos"),
    ("biome", "check", "--write"),
)
"""The commands that format the project anew."""


def new_name(typed: str) -> str:
    """Return the name as a heading has it: `Acme`.

    Raises:
        BadName: it cannot be a package, a DNS name and a prefix of variables, or could not be found again.
    """
    name = typed.strip()
    if not name:
        raise BadName(f"NAME is missing: make rename NAME={_EXAMPLE}")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*", name) or len(name) > _MAX:
        raise BadName(f"NAME={name}: use one word of at most {_MAX} letters and digits, such as {_EXAMPLE}")
    # All in capitals it would be spelled alike in the name of a class and of a variable.
    name = name.capitalize() if name.isupper() else name[0].upper() + name[1:]
    if name.upper() == name:
        raise BadName(f"NAME={name}: use a name of two letters or more")
    if name.lower() == _NOW.lower():
        raise BadName(f"NAME={name}: that is the name it has")
    if keyword.iskeyword(name.lower()) or find_spec(name.lower()) or (ROOT / name.lower()).exists():
        raise BadName(f"NAME={name}: Python, a package or a folder has this name; choose another one")
    if using := _using(name) if name != _EXAMPLE else []:
        where = f"{len(using)} files have this word already, such as {using[0]}"
        raise BadName(f"NAME={name}: {where}; choose another one, which the next rename can tell from it")
    return name


def _using(name: str) -> list[Path]:
    """Return the files that have the word in any of its spellings."""
    word = _word(name)
    return [file.relative_to(ROOT) for file in _tracked() if word.search(_text(file) or "")]


def rename(name: str) -> int:
    """Replace the name in every tracked file and in the paths; return how many files have changed.

    Args:
        name: as new_name() returns it.
    """
    changed = 0
    for file in _tracked():
        text = _text(file)
        if text is not None and (renamed := replaced(text, name)) != text:
            file.write_text(renamed, encoding="utf-8")
            changed += 1
    for file in _tracked():
        path = file.relative_to(ROOT)
        moved = ROOT / replaced(str(path), name)
        if moved != file:
            moved.parent.mkdir(parents=True, exist_ok=True)
            file.rename(moved)
            _remove_empty(file.parent)
    return changed


def _text(file: Path) -> str | None:
    """Return the content of the file; None if it is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def _spellings(name: str) -> tuple[str, str, str]:
    return name.lower(), name, name.upper()


def _word(name: str) -> re.Pattern[str]:
    """Return a pattern of the name in any of its spellings, and not inside of another word."""
    return re.compile(rf"(?<![A-Za-z])(?:{'|'.join(_spellings(name))})(?![a-z])")


def replaced(text: str, name: str) -> str:
    """Return the text, or the path, with another name of the project."""
    spelled = dict(zip(_spellings(_NOW), _spellings(name), strict=True))
    return _word(_NOW).sub(lambda found: spelled[found[0]], text)


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
