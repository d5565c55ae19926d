"""Every setting of every service, found in the code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from pydantic_settings import BaseSettings

import chassis
import order_svc
import user_svc
from devstack.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo


@cache
def variables() -> dict[str, FieldInfo]:
    """Return the variables that services read, with what they may be; a service's own wins over the common one."""
    found: dict[str, FieldInfo] = {}
    for section in _sections():
        prefix = section.model_config.get("env_prefix", "")
        for name, field in section.model_fields.items():
            alias = field.validation_alias
            found[alias if isinstance(alias, str) else f"{prefix}{name}".upper()] = field
    return found


def stack_variables() -> dict[str, FieldInfo]:
    """Return the variables that the stack of `make run` reads."""
    return {
        field.validation_alias if isinstance(field.validation_alias, str) else f"SHOP_{name}".upper(): field
        for name, field in Settings.model_fields.items()
    }


def _sections() -> Iterator[type[BaseSettings]]:
    for package in (chassis, user_svc, order_svc):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("__main__", ".env")) or ".versions" in module.name:
                continue
            for _, section in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(section, BaseSettings) and section.__module__ == module.name:
                    yield section
