"""Prints helm/shop/README.md: README.tpl.md with a table of the values and their descriptions.

The description of a value is the comment above it in values.yaml.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART: Final = Path(__file__).parent / "shop"
_KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):")


@dataclass(frozen=True, slots=True)
class Value:
    """One value, as `edge.service.type`, with its default and its description."""

    path: str
    default: object
    description: str


class Undescribed(Exception):
    """A value has no comment above it."""


def values(text: str) -> Iterator[Value]:
    """Yield the values in their order. A group of values is yielded only if it has a description.

    Raises:
        Undescribed: a value that is not a group has no description.
    """
    defaults = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip().removeprefix("#").strip())
            continue
        if found := _KEY.match(line):
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            default = _at(defaults, path)
            # The values below `services` are those of `serviceDefaults`.
            if path[0] != "services" and (comment or not isinstance(default, dict)):
                if not comment:
                    raise Undescribed(".".join(path))
                yield Value(".".join(path), default, " ".join(comment))
        comment = []


def table(text: str) -> str:
    """Return the values as a table in Markdown."""
    lines = ["| value | default | |", "|---|---|---|"]
    for value in values(text):
        is_group = isinstance(value.default, dict) and value.default and "." not in value.path
        default = "" if is_group else f"`{json.dumps(value.default, ensure_ascii=False)}`"
        lines.append(f"| `{value.path}` | {default} | {value.description} |")
    return "\n".join(lines)


def _at(defaults: object, path: list[str]) -> object:
    for key in path:
        if not isinstance(defaults, dict):
            raise TypeError(f"{path} is not in the values")
        defaults = defaults[key]
    return defaults


def main() -> None:
    """Print the page."""
    template = (CHART / "README.tpl.md").read_text()
    sys.stdout.write(template.replace("{{ values }}", table((CHART / "values.yaml").read_text())))


if __name__ == "__main__":
    main()
