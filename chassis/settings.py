"""The base of all settings: environment variables, read once, frozen.

Each package of the chassis has its own section. A service reads its sections in `__main__` and hands them on; nothing
else looks at the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

_CONSTANT: Final = object()

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
    folder = os.environ.get("SECRETS_DIR")
    mistakes = list(_constants_set(section, folder))
    try:
        settings = section(_secrets_dir=folder)
        if not mistakes:
            return settings
    except ValidationError as error:
        mistakes += _explained(error, section)
    print(*mistakes, sep="\n", file=sys.stderr)  # noqa: T201  no log yet
    raise SystemExit(1)


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
