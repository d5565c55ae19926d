"""The edits that remove an example from files outside its folders, as its `removal.toml` declares them.

A generated service is named nowhere but in its own folders, so it has no such file. An example has one: another service
counts what it publishes, documents show it, suites measure it. tests/unit/devstack/test_removal.py compares the
declaration with the tree, so a change after which it no longer fits fails at once.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT
from devstack.scaffold import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chassis.service import Service

FILE: Final = "removal.toml"


class Drifted(Exception):
    """The declaration does not fit the tree. The message has a line for each thing that does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A passage of a file, and its replacement after the removal.

    Attributes:
        file: its path in the repository.
        text: the passage, or how it begins if `until` is given. The file has it exactly once.
        until: the first occurrence of this after `text` ends the passage, and stays. Empty: the passage is `text`.
        becomes: what stands there afterwards.
    """

    file: str
    text: str
    until: str = ""
    becomes: str = ""

    def applied_to(self, content: str) -> str:
        """Return the content of the file after the removal.

        Raises:
            Drifted: the passage is not there, or more than once.
        """
        found = [*self._pattern(self.text).finditer(content)]
        if len(found) != 1:
            raise Drifted(f"{self.file} has {self.text!r} {len(found)} times, not once")
        start, end = found[0].span()
        if self.until:
            stop = self._pattern(self.until).search(content, end)
            if stop is None:
                raise Drifted(f"{self.file} has no {self.until!r} after {self.text!r}")
            end = stop.start()
        return content[:start] + self.becomes + content[end:]

    def _pattern(self, text: str) -> re.Pattern[str]:
        # A renamed project is formatted anew, so that its Python is wrapped in other places.
        return re.compile(_wrapped_anyhow(text) if self.file.endswith(".py") else re.escape(text))


def _wrapped_anyhow(code: str) -> str:
    """Return a pattern of the code whose brackets may be opened or closed on lines of their own, after a comma."""
    bare = re.sub(r"(?<=[(\[{])\s+(?=\S)|(?<=\S),?\s*(?=[)\]}])", "", code)
    pattern = ""
    for number, part in enumerate(parts := re.findall(r"\w+|\s+|[^\w\s]", bare)):
        is_inside = 0 < number < len(parts) - 1
        if part.isspace():
            pattern += r"\s+" if is_inside else re.escape(part)
        else:
            before = r",?\s*" if part in ")]}" and number else ""
            after = r"\s*" if part in "([{" and is_inside else ""
            pattern += before + re.escape(part) + after
    return pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """The removal of a service.

    Attributes:
        gone: files and folders beside the service's own that are of no use without it, each with its reason.
        edits: passages of files that stay, in the order in which they are made.
        words: by the path of a file in which the service is only an example: its words, and those of the service that
            takes its place. They are replaced after the edits.
    """

    gone: Mapping[str, str]
    edits: tuple[Edit, ...]
    words: Mapping[str, Mapping[str, str]]

    def paths(self, service: Service) -> list[Path]:
        """Return the files and folders that go: the service's own, then the others."""
        return [*files.of_service(service), *(ROOT / path for path in self.gone)]

    def edited(self, *, root: Path = ROOT) -> dict[Path, str]:
        """Return the new content of each file that stays and changes.

        Raises:
            Drifted: the declaration does not fit the tree.
        """
        contents: dict[Path, str] = {}
        complaints = [f"{path} is not there" for path in self.gone if not (root / path).exists()]
        for edit in self.edits:
            try:
                contents[root / edit.file] = edit.applied_to(_content(edit.file, contents, root=root))
            except Drifted as error:
                complaints.append(str(error))
        for file, words in self.words.items():
            content = _content(file, contents, root=root)
            complaints += [f"{file} does not have the word {word!r}" for word in words if word not in content]
            contents[root / file] = _with_words(content, words)
        if complaints:
            raise Drifted("\n".join(complaints))
        return contents


def removal_of(service: Service, *, root: Path = ROOT) -> Removal:
    """Return what goes with the service; nothing if it has no `removal.toml`."""
    file = root / service.name / FILE
    told = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return Removal(
        gone=told.get("gone", {}),
        edits=tuple(_edits(told.get("edits", {}))),
        words=told.get("words", {}),
    )


def _edits(told: Mapping[str, list[Mapping[str, str]]]) -> Iterator[Edit]:
    for file, edits in told.items():
        yield from (Edit(file=file, **edit) for edit in edits)


def _content(file: str, contents: Mapping[Path, str], *, root: Path) -> str:
    path = root / file
    if path in contents:
        return contents[path]
    if not path.is_file():
        raise Drifted(f"{file} is not there")
    return path.read_text(encoding="utf-8")


def _with_words(content: str, words: Mapping[str, str]) -> str:
    # All at once and the longest first, so that no word is found in what has replaced another.
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(pattern, lambda found: words[found[0]], content)
