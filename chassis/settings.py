"""The base of all settings: environment variables, read once, frozen.

Each package of the chassis has its own section. `serving.py` and `worker.py` of a service read the sections that a
command needs, and hand them on.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, TypeVar, dataclass_transform, get_type_hints

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

T = TypeVar("T")

_CONSTANT: Final = object()
_WITH_SECTIONS: Final = set[type]()
# The least that difflib's ratio must be for a name to count as a misspelling of another: `METRIC_PORT` has 0.96.
_ALIKE: Final = 0.85

Seconds = Annotated[float, Field(ge=0.001, le=3600)]
"""A time. PostgreSQL and gRPC count in milliseconds, and to both of them 0 means something else."""
Constant = Annotated[T, _CONSTANT]
"""A field of a section that no variable sets: it follows from other numbers of the code. Tests give the section's
constructor another value."""


class Section(BaseSettings):
    """A group of settings; `class RelaySettings(Section, env_prefix="RELAY_")` reads `RELAY_KEEP_S` as `keep_s`.

    The docstring below a field says what it is and gives the reason of its default; docs/settings.md is made of them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, env_ignore_empty=True)

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, given: Mapping[str, object]) -> dict[str, object]:
        """Leave out blank values: `LOG_DIR=` in an env file, or an empty file, means that nothing is set."""
        return {name: value for name, value in given.items() if not (isinstance(value, str) and not value.strip())}

    @field_validator("*", mode="before")
    @classmethod
    def _bare(cls, given: object) -> object:
        """Strip the newline that editors and `echo` leave. Refuse quotes, which `docker run --env-file` keeps."""
        if not isinstance(given, str):
            return given
        text = given.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in {"'", '"'}:
            raise ValueError("must not be in quotes")
        return text


_Section = TypeVar("_Section", bound=BaseSettings)


def load(section: type[_Section]) -> _Section:
    """Return a section read from the environment and, what is not there, from the files in the folder `SECRETS_DIR`.

    A file has the name of its variable. Exits with code 1 and one line per mistake: a variable is missing, makes no
    sense, or would set a constant. The line names the variable and never its value, which may be a secret. A variable
    that is nearly spelt as one of the section's is named on standard error, and ignored.
    """
    read, mistakes = _read(section)
    if read is None or mistakes:
        _exit(mistakes)
    return read


def _read(section: type[_Section]) -> tuple[_Section | None, list[str]]:
    folder = os.environ.get("SECRETS_DIR", "").strip() or None
    try:
        files = [file.name for file in Path(folder).iterdir()] if folder else []
    except OSError as error:
        return None, [f"SECRETS_DIR: the folder {folder} cannot be read: {error.strerror}"]
    given = {name.upper() for name in (*os.environ, *files)}
    for hint in _misspelt(section, given):
        print(hint, file=sys.stderr)  # noqa: T201  no log yet
    mistakes = list(_constants_set(section, given))
    try:
        # pydantic only warns about a secret that is no file. If the value is then missing, _missing() says why.
        with warnings.catch_warnings(action="ignore"):
            return section(_secrets_dir=folder), mistakes
    except ValidationError as error:
        return None, [*mistakes, *_explained(error, section, folder)]
    except SettingsError:
        return None, [*mistakes, *_unreadable(section, folder or "")]


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


def _constants_set(section: type[BaseSettings], given: set[str]) -> Iterator[str]:
    # An operator who sets one relies on it: an earlier release may have read it.
    for name, value in constants(section).items():
        if name in given:
            yield f"{name}: this is no setting, the value is always {value}. Remove the variable"


def _misspelt(section: type[BaseSettings], given: set[str]) -> Iterator[str]:
    """Yield a hint for each variable that differs from an unset one of the section by a letter or two."""
    known = {variable_of(section, name) for name in section.model_fields}
    # The standard's variables differ by a word; its libraries read more of them than we do.
    for name in sorted(name for name in given - known if not name.startswith("OTEL_")):
        for meant in difflib.get_close_matches(name, known - given, n=1, cutoff=_ALIKE):
            yield f"{name}: there is no such setting, so it is ignored. Did you mean {meant}?"


def _explained(error: ValidationError, section: type[BaseSettings], folder: str | None) -> Iterator[str]:
    for mistake in error.errors(include_input=False, include_url=False):
        name = variable_of(section, "_".join(str(part) for part in mistake["loc"]))
        is_missing = mistake["type"] == "missing"
        yield f"{name}: {_missing(name, folder) if is_missing else mistake['msg'].removeprefix('Value error, ')}"


def _missing(name: str, folder: str | None) -> str:
    file = Path(folder, name) if folder else None
    if file and file.is_dir():
        return f"must be set: {file} is a folder and no file"  # Docker makes one where it finds nothing to mount
    if file and file.exists():
        return f"must be set: {file} is empty, or leads out of the folder"
    return "must be set"


def _unreadable(section: type[BaseSettings], folder: str) -> Iterator[str]:
    """Yield a line for each file of the section that cannot be read."""
    for name in (variable_of(section, field) for field in section.model_fields):
        file = Path(folder, name)
        try:
            if file.is_file():
                file.read_text(encoding="utf-8")
        except OSError as why:
            yield f"{name}: {file} cannot be read by uid {os.geteuid()}: {why.strerror}"
        except UnicodeDecodeError:
            yield f"{name}: {file} is not a text in UTF-8"


def variable_of(section: type[BaseSettings], field: str) -> str:
    """Return the variable of a field; pydantic reports a field with an alias by the alias."""
    named = section.model_fields.get(field)
    if named and isinstance(named.validation_alias, str):
        return named.validation_alias
    return field if field.isupper() else f"{section.model_config.get('env_prefix', '')}{field}".upper().rstrip("_")
