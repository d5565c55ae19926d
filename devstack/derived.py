"""The files that follow from the services' declarations: `python -m devstack.derived FOLDER` writes them below it.

Each has a template beside it, with the ending `.j2`: `<< … >>` is a value, a line `#% …` a statement of Jinja.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined

from chassis.service import ROOT, callers_of, services

TEMPLATES: Final = (
    "docker/compose.yaml",
    "docker/compose.dev.yaml",
    "docker/compose.observe.yaml",
    "docker/compose.prod.yaml",
    "docker/observe/prometheus.yaml",
    "docs/observability/rules.yaml",
    "helm/shop/values.yaml",
    "helm/shop/files/services.yaml",
)
"""The files, without the ending of their templates."""

_NOTE: Final = "# Made from {name}.j2 and the files service.toml by `make generate`: change those.\n"


def render(name: str) -> str:
    """Return the content of the file."""
    environment = Environment(
        variable_start_string="<< ",
        variable_end_string=" >>",
        line_statement_prefix="#%",
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  YAML, of names that chassis.service has checked
    )
    found = services()
    template = environment.from_string((ROOT / f"{name}.j2").read_text(encoding="utf-8"))
    return _NOTE.format(name=Path(name).name) + template.render(
        services=found,
        callers_of=lambda service: callers_of(service, found),
        databases=[f"{service.name}={service.database}" for service in found],
        passwords=[f"{service.name}_password" for service in found],
        secrets=sorted({secret.lower() for service in found for secret in service.secrets}),
    )


def main(folder: Path) -> None:
    """Write all of them below the folder."""
    for name in TEMPLATES:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(render(name), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
