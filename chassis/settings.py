"""The base of all settings: environment variables, read once, frozen.

Each package of the chassis has its own section. A service reads its sections in `__main__` and hands them on; nothing
else looks at the environment.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=3600)]


class Section(BaseSettings):
    """A group of settings; `class RelaySettings(Section, env_prefix="RELAY_")` reads `RELAY_BATCH` as `batch`.

    The docstring below a field says what it is and gives the reason of its default; docs/settings.md is made of them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


_Section = TypeVar("_Section", bound=BaseSettings)


def load(section: type[_Section]) -> _Section:
    """Return a section read from the environment and, what is not there, from the files in the folder `SECRETS_DIR`.

    A file has the name of its variable. Exits with code 1 and one line per mistake when a variable is missing or makes
    no sense. The line names the variable and never its value, which may be a secret.
    """
    try:
        return section(_secrets_dir=os.environ.get("SECRETS_DIR"))
    except ValidationError as error:
        prefix = section.model_config.get("env_prefix", "")
        for mistake in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in mistake["loc"])
            said = mistake["msg"].removeprefix("Value error, ")
            # A field with an alias is reported by its alias, which is the whole name of the variable.
            variable = name if name.isupper() else f"{prefix}{name}".upper().rstrip("_")
            print(f"{variable}: {said}", file=sys.stderr)  # noqa: T201  no log yet
        raise SystemExit(1) from None
