"""Every setting of every service and of the stack, found in the code."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from chassis.service import services
from devstack.settings import Settings
from docs import settings_page

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


@cache
def variables() -> dict[str, FieldInfo]:
    """Return the variables that services read, with what they may be."""
    sections = settings_page.sections().values()
    return {name: field for section in sections for name, field in settings_page.variables(section).items()}


def stack_variables() -> dict[str, FieldInfo]:
    """Return the variables that the stack of `make run` reads."""
    found = {
        field.validation_alias if isinstance(field.validation_alias, str) else f"SHOP_{name}".upper(): field
        for name, field in Settings.model_fields.items()
    }
    of_databases = found.pop("SHOP_DATABASE_URLS")
    return found | {f"DATABASE_URL_{service.database}".upper(): of_databases for service in services()}
