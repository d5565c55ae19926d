"""The base of all settings: environment variables, read once, frozen.

Each package of the chassis has its own section. A service reads its sections in `__main__` and hands them on; nothing
else looks at the environment.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar, dataclass_transform, get_type_hints

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import NoReturn

T = TypeVar("T")

_CONSTANT: Final = object()
_WITH_SECTIONS: Final = set[type]()

Seconds = Annotated[float, Field(gt=0, le=3600)]
Constant = Annotated[T, _CONSTANT]
"""A field of a section that no variable sets: it follows from other numbers of the code. Tests give the section's
constructor another value."""


class Section(BaseSettings):
    """A group of settings; `class RelaySettings(Section, env_prefix="RELAY_")` reads `RELAY_KEEP_S` as `keep_s`.

    The docstring below a field says what it is and gives the reason of its default; docs/settings.md is made of them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


_Section = TypeVar("_Section", bound=BaseSettings)


def load(section: type[_Section]) -> _Section:
    """Return a section read from the environment and, what is not there, from the files in the folder `SECRETS_DIR`.

    A file has the name of its variable. Exits with code 1 and one line per mistake: a variable is missing, makes no
    sense, or would set a constant. The line names the variable and never its value, which may be a secret.
    """
    read, mistakes = _read(section)
    if read is None or mistakes:
        _exit(mistakes)
    return read


def _read(section: type[_Section]) -> tuple[_Section | None, list[str]]:
    folder = os.environ.get("SECRETS_DIR")
    mistakes = list(_constants_set(section, folder))
    try:
        return section(_secrets_dir=folder), mistakes
    except ValidationError as error:
        return None, [*mistakes, *_explained(error, section)]


def _exit(mistakes: Iterable[str]) -> NoReturn:
    print(*dict.fromkeys(mistakes), sep="\n", file=sys.stderr)  # noqa: T201  no log yet
    raise SystemExit(1)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def sections(cls: type[T]) -> type[T]:
    """Return the class as a frozen dataclass whose fields are sections, for load_sections().

    Unlike elsewhere, its module imports the types of its fields at run time.
    """
    made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    _WITH_SECTIONS.add(made)
    return made


def sections_of(cls: type) -> dict[str, type[Section]]:
    """Return the sections in the fields of such a class, by field; none of any other class."""
    return get_type_hints(cls) if cls in _WITH_SECTIONS else {}


def load_sections(cls: type[T]) -> T:
    """Return the class's sections, each read as load() does. The mistakes of all of them are printed together."""
    read = {name: _read(section) for name, section in sections_of(cls).items()}
    if mistakes := [mistake for _, found in read.values() for mistake in found]:
        _exit(mistakes)
    return cls(**{name: section for name, (section, _) in read.items()})


def constants(section: type[BaseSettings]) -> dict[str, object]:
    """Return the values of the section's constants by the variables that would set them."""
    fields = section.model_fields.items()
    return {variable_of(section, name): field.default for name, field in fields if _CONSTANT in field.metadata}


def _constants_set(section: type[BaseSettings], folder: str | None) -> Iterator[str]:
    # An operator who sets one relies on it: an earlier release may have read it.
    files = (path.name for path in Path(folder).iterdir()) if folder and Path(folder).is_dir() else ()
    given = {name.upper() for name in (*os.environ, *files)}
    for name, value in constants(section).items():
        if name in given:
            yield f"{name}: this is no setting, the value is always {value}. Remove the variable"


def _explained(error: ValidationError, section: type[BaseSettings]) -> Iterator[str]:
    for mistake in error.errors(include_input=False, include_url=False):
        name = variable_of(section, "_".join(str(part) for part in mistake["loc"]))
        yield f"{name}: {mistake['msg'].removeprefix('Value error, ')}"


def variable_of(section: type[BaseSettings], field: str) -> str:
    """Return the variable of a field; pydantic reports a field with an alias by the alias."""
    named = section.model_fields.get(field)
    if named and isinstance(named.validation_alias, str):
        return named.validation_alias
    return field if field.isupper() else f"{section.model_config.get('env_prefix', '')}{field}".upper().rstrip("_")
