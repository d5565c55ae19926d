"""Reads the documents: their commands, names, paths and links, which tests compare with the code."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACKED: Final = tuple(
    subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\n")
)
DOCUMENTS: Final = tuple(
    REPOSITORY / name
    for name in TRACKED
    # Decisions and the changelog tell of their day; what is a template is checked as what is made of it.
    if name.endswith(".md")
    and name not in {"CHANGELOG.md", "docs/limits.tpl.md", "docs/settings.tpl.md", "helm/shop/README.tpl.md"}
    and not name.startswith(("docs/adr/", "protos/codegen/", "third_party/"))
)
_FENCE: Final = re.compile(r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"(?<!`)`(?P<text>[^`]+)`(?!`)")
_LINK: Final = re.compile(r"\]\((?P<target>[^()\s]+)\)")
_ASSIGNED: Final = re.compile(r"^[A-Z][A-Z0-9_]*=\S*$")
_SEPARATORS: Final = re.compile(r"\s*(?:\|\|?|&&|;|\$\(|\n)\s*")


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code in a document.

    Attributes:
        where: the document and line.
        text: the code; of a span, in one line.
        language: of a block; `span` for code inside of a sentence.
    """

    where: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a document tells the reader to type.

    Attributes:
        where: the document and line.
        words: the program and its arguments, without variables before them.
        variables: set before it or among its arguments.
    """

    where: str
    words: tuple[str, ...]
    variables: tuple[str, ...]


def code() -> Iterator[Code]:
    """Yield every block and span of code of the documents."""
    for path in DOCUMENTS:
        text = path.read_text()
        for block in _FENCE.finditer(text):
            yield Code(_where(path, text, block.start() + 1), block["text"], block["language"])
        prose = _FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
        for span in _SPAN.finditer(prose):
            text = " ".join(span["text"].replace("\\|", "|").split())  # in a table a bar is escaped
            yield Code(_where(path, prose, span.start()), text, "span")


def links() -> Iterator[tuple[Path, str]]:
    """Yield the target of every link that leads to a file of the repository, with the document."""
    for path in DOCUMENTS:
        for link in _LINK.finditer(_FENCE.sub("", path.read_text())):
            if "://" not in link["target"]:
                yield path, link["target"]


def anchors(path: Path) -> set[str]:
    """Return what a link can name behind `#`: the headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(*programs: str) -> Iterator[Command]:
    """Yield the commands that begin with one of the programs, by the last part of its path."""
    for each in code():
        if each.language not in {"", "sh", "bash", "console", "span"}:
            continue
        text = re.sub(r"\\\n\s*", " ", each.text) if each.language != "span" else each.text
        for line in _pieces(text):
            command = _command(each.where, line)
            if command and command.words[0].rpartition("/")[2] in programs:
                yield command


def _pieces(text: str) -> Iterator[str]:
    """Yield the commands of a script one by one; those within quotes stay where they are."""
    text = re.sub(r"(?m)(^|\s)#.*$", "", text)
    quoted: list[str] = []

    def keep(found: re.Match[str]) -> str:
        quoted.append(found[0])
        return f"\0{len(quoted) - 1}\0"

    for piece in _SEPARATORS.split(re.sub(r"'[^']*'|\"[^\"]*\"", keep, text)):
        yield re.sub(r"\0(\d+)\0", lambda found: quoted[int(found[1])], piece)
    for inner in quoted:
        yield from re.findall(r"\$\(([^()]*)\)", inner)


def _command(where: str, line: str) -> Command | None:
    try:
        words = shlex.split(re.sub(r"[<>]{1,2} ?\S*", "", line) if "…" not in line else line)
    except ValueError:
        return None
    variables = [word.partition("=")[0] for word in words if _ASSIGNED.match(word)]
    words = [word.rstrip(")") for word in words if not _ASSIGNED.match(word)]
    words = words[1:] if words[:1] in (["export"], ["exec"], ["env"]) else words
    return Command(where, tuple(words), tuple(variables)) if words else None


def _where(path: Path, text: str, position: int) -> str:
    return f"{path.relative_to(REPOSITORY)}:{text.count(chr(10), 0, position) + 1}"
