"""The files of a new service: written from the template, and found again to be removed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chassis.service import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.service import Service
    from devstack.scaffold.names import Names

TEMPLATE: Final = Path(__file__).with_name("template")
_ENDING: Final = ".tpl"
# A part that not every service has, in a file that every service has; a file only of services that read events.
_PART: Final = re.compile(
    r"^ *(?:#|//|<!--) \[(reads|reads nothing|text key|uuid key)\].*\n((?:.*\n)*?) *(?:#|//|<!--) \[end\].*\n",
    re.MULTILINE,
)
_ONLY_READERS: Final = ("/consumer.py", "/test_consumer.py")


def of_new(names: Names) -> Iterator[tuple[Path, str]]:
    """Yield the paths in the repository and the content of the new service's files."""
    kept = {"reads" if names.reads else "reads nothing", f"{names.key} key"}
    for file in sorted(TEMPLATE.rglob(f"*{_ENDING}")):
        path = _replaced(str(file.relative_to(TEMPLATE)).removesuffix(_ENDING), names)
        if path.endswith(_ONLY_READERS) and not names.reads:
            continue
        text = _PART.sub(lambda part: part[2] if part[1] in kept else "", file.read_text(encoding="utf-8"))
        yield Path(path), _replaced(text, names)


def of_service(service: Service) -> list[Path]:
    """Return the folders and files that belong to the service alone and exist."""
    name = service.name
    packages = {served.split(".")[1] for served in service.serves}
    found = [ROOT / name, *(ROOT / "protos" / "shop" / package for package in sorted(packages))]
    if service.publishes:
        found.append(ROOT / "protos" / "shop" / "event" / "v1" / f"{service.publishes}_events.proto")
    found += sorted(ROOT.glob(f"tests/*/{name}"))
    found.append(ROOT / "docs" / "services" / f"{service.short_name}.md")
    return [path for path in found if path.exists()]


def _replaced(text: str, names: Names) -> str:
    for pattern, replacement in names.substitutions():
        text = pattern.sub(replacement, text)
    return text
