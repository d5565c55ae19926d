"""Writes docs/settings.md and docs/limits.md: their templates, with the fields of the sections of settings.

In settings.tpl.md, `{{ RelaySettings }}` becomes the processes that read the section, and its variables; in
limits.tpl.md, `{{ constants }}` becomes the constants of all sections. The docstring below a field is its description.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import CodeType, FunctionType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr

import chassis
from chassis.client.settings import PeerSettings
from chassis.runtime import cli
from chassis.service import services
from chassis.settings import Section, constants, sections_of, variable_of
from protos.codegen.refusals import Refusal, ending_with_a_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic.fields import FieldInfo

DOCS: Final = Path(__file__).parent
NONE: Final = "\N{EN DASH}"
_SERVICES: Final = tuple(importlib.import_module(service.name) for service in services())
_WORKERS: Final = [f"{service.__name__}.worker" for service in _SERVICES]
_MARK: Final = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)
_HEADED: Final = re.compile(r"^## .+\n\n\{\{ (\w+) \}\}\n\n", re.MULTILINE)
_UNITS: Final = {"_s": " s", "_kib": " KiB"}
_KINDS: Final = {
    bool: "true, false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "names",
    Path: "a path",
    SecretStr: "a secret",
}


class Incomplete(Refusal):
    """The template lacks a section, names one that does not exist, or a field has no docstring."""


def sections() -> dict[str, type[Section]]:
    """Return the sections of the chassis and of the services by name, without subclasses that set a default.

    Services that call the same peer have a section of the same name, with the same variables.
    """
    found: dict[str, type[Section]] = {}
    for package in (chassis, *_SERVICES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("__main__", ".env")) or ".versions" in module.name:
                continue
            for _, section in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(section, Section) and section.__module__ == module.name and section is not Section:
                    found.setdefault(section.__name__, section)
    # A section without a prefix may be the base of others, which have one; that of peers also if no service has a peer.
    bases = {base for section in found.values() if not _only_sets_defaults(section) for base in section.__bases__}
    bases.add(PeerSettings)
    return {name: section for name, section in found.items() if not (_only_sets_defaults(section) or section in bases)}


def _only_sets_defaults(section: type[Section]) -> bool:
    base = section.__mro__[1]
    return base is not Section and issubclass(base, Section) and _prefix(base) == _prefix(section)


def _prefix(section: type[Section]) -> str:
    return section.model_config.get("env_prefix", "")


def variables(section: type[Section]) -> dict[str, FieldInfo]:
    """Return the variables of a section, without those of its constants."""
    fixed = constants(section)
    named = {variable_of(section, name): field for name, field in section.model_fields.items()}
    return {name: field for name, field in named.items() if name not in fixed}


def limits(template: str) -> str:
    """Return the page of limits.

    Raises:
        Incomplete: a constant is not described.
    """
    rows = [
        f"| `{name}` | {value} | {_description(name, section)} | `{_file_of(section, name)}` |"
        for section in sections().values()
        for name, value in constants(section).items()
    ]
    head = ["| constant | value | what, and why | where |", "|---|---|---|---|"]
    return template.replace("{{ constants }}", "\n".join([*head, *rows]))


def _file_of(section: type[Section], variable: str) -> str:
    """Return the file that declares the field of a variable: the section's own, or that of its base."""
    field = next(each for each in section.model_fields if variable_of(section, each) == variable)
    owner = next(base for base in section.__mro__ if field in vars(base).get("__annotations__", {}))
    return f"{owner.__module__.replace('.', '/')}.py"


def settings(template: str) -> str:
    """Return the page of settings.

    Raises:
        Incomplete: a section is missing or unknown, or a field is not described.
    """
    known = {name: section for name, section in sections().items() if variables(section)}
    # A heading stays in the template when the last service with its section goes; another one may come.
    template = _HEADED.sub(lambda part: part[0] if part[1] in known else "", template)
    marked = _MARK.findall(template)
    if sorted(marked) != sorted(known):
        raise Incomplete(f"The template's sections are not the code's: {', '.join(set(marked) ^ set(known))}")
    readers, listed = _readers(), set[str]()

    def table(mark: re.Match[str]) -> str:
        section = known[mark[1]]
        rows = [_row(name, field, section) for name, field in variables(section).items() if name not in listed]
        listed.update(variables(section))
        head = ["| variable | value | default | what, and why |", "|---|---|---|---|"]
        return "\n".join([f"Read by {readers.get(mark[1], 'no service yet')}.", "", *head, *rows])

    return _MARK.sub(table, template)


def _row(name: str, field: FieldInfo, section: type[Section]) -> str:
    return f"| `{name}` | {_value(name, field)} | {_default(name, field)} | {_description(name, section)} |"


def _description(name: str, section: type[Section]) -> str:
    field = next(field for each, field in section.model_fields.items() if variable_of(section, each) == name)
    if not field.description:
        raise Incomplete(f"{section.__name__}: {name} has no docstring")
    return " ".join(field.description.split()).replace("|", "\\|")


def _value(name: str, field: FieldInfo) -> str:
    unit = next((unit for suffix, unit in _UNITS.items() if name.lower().endswith(suffix)), "")
    low, high = (_bound(field, *kinds) for kinds in (("ge", "gt"), ("le", "lt")))
    if low and high:
        return f"{low[1]} to {high[1]}{unit}" if low[0] == "ge" else f"above {low[1]}, to {high[1]}{unit}"
    if low:
        return f"{low[1]}{unit} or more" if low[0] == "ge" else f"above {low[1]}{unit}"
    return _kind(name, field.annotation)


def _bound(field: FieldInfo, *kinds: str) -> tuple[str, str] | None:
    for each in field.metadata:
        for kind in kinds:
            if (bound := getattr(each, kind, None)) is not None:
                return kind, str(bound)
    return None


def _kind(name: str, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(get_args(annotation))
    if name.endswith("URL"):
        return "a URL"
    if get_origin(annotation) in {Union, UnionType}:  # Path | None
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return _KINDS[get_origin(annotation) or annotation]


def _default(name: str, field: FieldInfo) -> str:
    if name == "SERVICE_NAME":
        return "the package"  # set by chassis.runtime.cli
    return "required" if field.is_required() else shown(field.default)


def shown(default: object) -> str:
    """Return a default as the page has it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        default = ",".join(default)
    return NONE if default in {None, ""} else str(default)


def _readers() -> dict[str, str]:
    """Return which commands of which services read each section."""
    reading: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for service in _SERVICES:
        found: dict[str, list[str]] = defaultdict(list)
        for name, run in commands_of(service.__name__).items():
            for section in _read_by(run):
                found[section].append(f"`{name}`")
        for section, names in found.items():
            reading[section][service.__name__] = tuple(names)
    return {section: _named(services) for section, services in reading.items()}


def _named(services: dict[str, tuple[str, ...]]) -> str:
    common = tuple(name for name in next(iter(services.values())) if all(name in names for names in services.values()))
    if len(services) < len(_SERVICES):
        return "; ".join(f"{service}: {', '.join(names)}" for service, names in services.items())
    own = [
        f"; {service} also by {', '.join(name for name in names if name not in common)}"
        for service, names in services.items()
        if set(names) - set(common)
    ]
    return f"every service: {', '.join(common)}{''.join(own)}"


def commands_of(package: str) -> dict[str, Callable[..., Any]]:
    """Return the commands of `python -m PACKAGE`, by name."""
    modules: dict[str, str] = importlib.import_module(f"{package}.__main__").MODULES
    return cli.commands_of(modules.values())


def _read_by(command: Callable[..., Any]) -> set[str]:
    """Return the sections that a command loads, itself or by functions of its module and methods of its class."""
    found = set[str]()
    owner = getattr(command, "__self__", None)
    known = set(sections())
    rest, seen = [inspect.unwrap(getattr(command, "__func__", command))], set[FunctionType]()
    while rest:
        function = rest.pop()
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        for name in _names(function.__code__):
            for value in _meanings(name, function, owner):
                if isinstance(value, type) and issubclass(value, Section):
                    found |= known.intersection(base.__name__ for base in value.__mro__)
                elif isinstance(value, type) and (within := sections_of(value)):
                    found |= known.intersection(base.__name__ for each in within.values() for base in each.__mro__)
                elif getattr(value, "__module__", None) in {function.__module__, *_WORKERS}:
                    rest.append(inspect.unwrap(value))
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _meanings(name: str, function: FunctionType, owner: object) -> Iterator[Any]:
    """Yield what a name can mean in a function: a global, or an attribute of the module's classes or of the owner."""
    yield function.__globals__.get(name)
    if name in function.__code__.co_freevars:
        yield (function.__closure__ or ())[function.__code__.co_freevars.index(name)].cell_contents
    held = getattr(owner, name, None)
    yield getattr(held, "__func__", held)
    for each in list(function.__globals__.values()):
        if isinstance(each, type) and each.__module__ == function.__module__ and name in vars(each):
            value = vars(each)[name]
            yield value.fget if isinstance(value, property) else value


def main(folder: Path) -> None:
    """Write both pages into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with ending_with_a_sentence():
        for write in (settings, limits):
            (folder / f"{write.__name__}.md").write_text(write((DOCS / f"{write.__name__}.tpl.md").read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
