"""The files of a new service: written from the template, and found again to be removed."""

from __future__ import annotations

import builtins
import dataclasses
import io
import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT
from devstack.scaffold.names import BadName, camel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.service import Service
    from devstack.scaffold.names import Names, Read

TEMPLATE: Final = Path(__file__).with_name("template")
_ENDING: Final = ".tpl"
# A part that not every service has, in a file that every service has; a file only of services that read events.
_PART: Final = re.compile(
    r"^ *(?:#|//|<!--) \[(reads|each read|reads nothing|text key|uuid key)\].*\n((?:.*\n)*?)"
    r" *(?:#|//|<!--) \[end\].*\n",
    re.MULTILINE,
)
# Of a contract. They are in order, whatever the service is called: another order makes other stubs.
_IMPORTS: Final = re.compile(r'(?:^import "[^"]+";\n)+', re.MULTILINE)
_ONLY_READERS: Final = ("/consumer.py", "/test_consumer.py")
# Tables, and parts of statements, which hide the tables of their names.
_TABLE: Final = re.compile(
    r"\bCREATE TABLE (?:IF NOT EXISTS )?(\w+)|\b([a-z_]+) AS (?:MATERIALIZED )?\($", re.MULTILINE
)


def of_new(names: Names) -> Iterator[tuple[Path, str]]:
    """Yield the paths in the repository and the content of the new service's files."""
    for file in sorted(TEMPLATE.rglob(f"*{_ENDING}")):
        path = _replaced(str(file.relative_to(TEMPLATE)).removesuffix(_ENDING), names)
        if path.endswith(_ONLY_READERS) and not names.reads:
            continue
        text = "".join(_written(file.read_text(encoding="utf-8"), names))
        yield Path(path), _IMPORTS.sub(lambda found: "".join(sorted(found[0].splitlines(keepends=True))), text)


def require_distinct(names: Names) -> None:
    """Return if no name of the service is one that its code, its contract or its statements use for something else.

    Raises:
        BadName: one is.
    """
    if not _is_taken(names):
        return
    if _is_taken(dataclasses.replace(names, resource="unheard_of", resources="unheard_ofs")):
        raise BadName(
            f"NAME={names.service}: the code of a service has this name for something else; choose another one, such "
            f"as {camel(names.service)}Store"
        )
    raise BadName(
        f"RESOURCE={names.resource}: the code of a service has this name or its plural for something else; choose "
        f"another one, such as {camel(names.resource)}Record"
    )


def _is_taken(names: Names) -> bool:
    # With names that nothing else has the files have the most different ones: fewer are left if two fall together.
    service = "unheard_of" if names.service == names.resource else "unheard_depot"
    unheard = dataclasses.replace(names, service=service, resource="unheard_of", resources="unheard_ofs")
    made, expected = dict(of_new(names)), list(of_new(unheard))
    taken = len(made) < len(expected)
    for (path, text), (_, unlike) in zip(made.items(), expected, strict=False):
        taken |= path.suffix in {".py", ".proto"} and len(_names_in(path, text)) < len(_names_in(path, unlike))
    tables = [
        name for text in (*made.values(), *_of_chassis()) for found in _TABLE.findall(text) for name in found if name
    ]
    return taken or tables.count(names.resources) > 1


def _of_chassis() -> Iterator[str]:
    return (file.read_text(encoding="utf-8") for file in (ROOT / "chassis").rglob("*.py"))


def _names_in(path: Path, text: str) -> set[str]:
    if path.suffix == ".proto":
        return set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", re.sub(r"//.*|\"[^\"]*\"", "", text)))
    words = tokenize.generate_tokens(io.StringIO(text).readline)
    return {word.string for word in words if word.type == tokenize.NAME} | set(dir(builtins))


def _written(template: str, names: Names) -> Iterator[str]:
    kept = {"reads" if names.reads else "reads nothing", f"{names.key} key"}
    end = 0
    for part in _PART.finditer(template):
        yield _replaced(template[end : part.start()], names)
        if part[1] == "each read":
            yield from (_replaced(part[2], names, read) for read in names.reads)
        elif part[1] in kept:
            yield _replaced(part[2], names)
        end = part.end()
    yield _replaced(template[end:], names)


def of_service(service: Service) -> list[Path]:
    """Return the folders and files that belong to the service alone and exist."""
    name = service.name
    packages = {served.split(".")[1] for served in service.serves}
    found = [ROOT / name, *(ROOT / "protos" / "shop" / package for package in sorted(packages))]
    if service.publishes:
        found.append(ROOT / "protos" / "shop" / "event" / "v1" / f"{service.publishes}_events.proto")
    found.append(ROOT / "protos" / "testing" / name)
    found += sorted(ROOT.glob(f"tests/*/{name}"))
    found.append(ROOT / "docs" / "services" / f"{service.short_name}.md")
    return [path for path in found if path.exists()]


def _replaced(text: str, *named: Names | Read) -> str:
    # All at once: a name can be a word of the template.
    substitutions = [each for names in named for each in names.substitutions()]
    pattern = "|".join(f"({pattern})" for pattern, _ in substitutions)
    return re.sub(pattern, lambda found: substitutions[(found.lastindex or 0) - 1][1], text)
