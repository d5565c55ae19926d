"""The import rules, for import-linter: those of pyproject.toml, and the same ones for every service.

`python -m devstack.import_rules > .build/import_rules.toml`, then `lint-imports --config .build/import_rules.toml`.
The layers of a service are its standard modules; `[modules]` in its service.toml adds its own. A service with further
rules has them in a file `import_rules.toml`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from typing import TYPE_CHECKING, Any, Final

from chassis.service import ROOT, InvalidDeclaration, services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chassis.service import Service

# From above to below; a module imports only from the layers below its own. `{…}` are the service's own modules.
_LAYERS: Final = (
    "__main__",
    "serving | worker",
    "composition",
    "rpc | consumer | {rpc}",
    "service",
    "{parts}",
    "repository | {repository}",
    "events",
    "{messages}",
    "commands | tables",
    "model | {model}",
    "errors",
)
_OWN: Final = ("rpc", "parts", "repository", "messages", "model")
# These, and the service's own modules beside `rpc` and in `messages`, may know gRPC and the stubs.
_AT_THE_EDGE: Final = frozenset(
    {"__init__", "__main__", "serving", "composition", "rpc", "consumer", "events", "settings"}
)


class UnknownModule(ValueError):
    """A service.toml names a layer or a module that does not exist."""


def rules(all_services: tuple[Service, ...]) -> dict[str, Any]:
    """Return import-linter's configuration.

    Raises:
        UnknownModule: a declaration names a layer or a module that does not exist.
    """
    configuration: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    names = [service.name for service in all_services]
    configuration["root_packages"] += names
    contracts: list[dict[str, Any]] = configuration["contracts"]
    for contract in contracts:
        if "services" in contract.get("forbidden_modules", []):
            contract["forbidden_modules"] = [m for m in contract["forbidden_modules"] if m != "services"] + names
        if "stubs" in contract.get("forbidden_modules", []):
            stubs = sorted({served.rsplit(".", 2)[0] for service in all_services for served in service.serves})
            contract["forbidden_modules"] = [m for m in contract["forbidden_modules"] if m != "stubs"] + stubs
    contracts.append({"name": "The services never import each other", "type": "independence", "modules": names})
    for service in all_services:
        contracts += _rules_of(service)
    return configuration


def _rules_of(service: Service) -> list[dict[str, Any]]:
    found = {path.stem for path in (ROOT / service.name).glob("*.py")}
    own = [module for modules in service.modules.values() for module in modules]
    if wrong := [*(service.modules.keys() - set(_OWN)), *(set(own) - found)]:
        raise UnknownModule(
            f"{service.file}: modules: there is no {', '.join(sorted(wrong))}; layers are {', '.join(_OWN)}"
        )
    layers = [_layer(layer, service.modules) for layer in _LAYERS]
    may_know = _AT_THE_EDGE | {module for key in ("rpc", "messages") for module in service.modules.get(key, ())}
    contracts: list[dict[str, Any]] = [
        {
            "name": f"Inside {service.name} imports go downward",
            "type": "layers",
            "containers": [service.name],
            "layers": [layer for layer in layers if layer],
        },
        {
            "name": f"gRPC and the stubs stay at the edge of {service.name}",
            "type": "forbidden",
            "source_modules": [f"{service.name}.{module}" for module in sorted(found - may_know)],
            "forbidden_modules": ["grpc", "google", "shop", "buf"],
            "allow_indirect_imports": True,
        },
    ]
    further = ROOT / service.name / "import_rules.toml"
    return contracts + (tomllib.loads(further.read_text())["contracts"] if further.exists() else [])


def _layer(layer: str, own: Mapping[str, tuple[str, ...]]) -> str:
    """Return the layer in import-linter's form, in which a module in brackets may be missing."""
    modules: list[str] = []
    for name in layer.split(" | "):
        modules += own.get(name.strip("{}"), ()) if name.startswith("{") else [name]
    return " | ".join(f"({module})" for module in modules)


def toml(configuration: Mapping[str, Any]) -> str:
    """Return the configuration as TOML; a list or a text in JSON is one in TOML."""
    plain = {key: value for key, value in configuration.items() if key != "contracts"}
    tables = [("[tool.importlinter]", plain)]
    tables += [("[[tool.importlinter.contracts]]", contract) for contract in configuration["contracts"]]
    lines = (
        line
        for heading, table in tables
        for line in (heading, *(f"{key} = {json.dumps(value)}" for key, value in table.items()), "")
    )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(toml(rules(services())))
    except (UnknownModule, InvalidDeclaration) as error:
        sys.exit(str(error))
