"""Types of JSON documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

JsonObject: TypeAlias = "dict[str, Json]"
"""An object that is still being put together."""
