"""Warnings for code that calls a deprecated rpc."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Final

from chassis.client.hedging import rpc_of
from protos.deprecation import deprecation_of

# Packages between the caller's code and this module: a warning is shown where the caller's code is.
_BETWEEN: Final = frozenset({"asyncio", "chassis", "grpc", "protos", "shop"})


@functools.cache
def warn_if_deprecated(method: str | bytes) -> None:
    """Warn if the rpc of this path is deprecated: once in a process, or at each call if warnings are errors.

    Raises:
        DeprecationWarning: the filters of Python's warnings turn it into an error.
    """
    rpc = rpc_of(method)
    if rpc is None:
        return
    service = rpc.containing_service
    if deprecation := deprecation_of(rpc.GetOptions(), service.GetOptions(), service.file.GetOptions()):
        message = f"{rpc.full_name}: {deprecation.in_words()}"
        warnings.warn(message, DeprecationWarning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return how far above warn_if_deprecated() the caller's code is."""
    level, frame = 0, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    return level
