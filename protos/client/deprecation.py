"""Warnings for code that calls a deprecated rpc."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Final

from google.protobuf import descriptor_pool

from protos.deprecation import deprecation_of

# Packages between the caller's code and this module: a warning is shown where the caller's code is.
_BETWEEN: Final = frozenset({"asyncio", "chassis", "grpc", "protos", "shop"})


@functools.cache
def warn_if_deprecated(method: str | bytes) -> None:
    """Warn if the rpc of this path is deprecated: once in a process, or at each call if warnings are errors.

    Raises:
        DeprecationWarning: the filters of Python's warnings turn it into an error.
    """
    path = method.decode() if isinstance(method, bytes) else method
    service_name, _, name = path.strip("/").partition("/")
    try:
        service = descriptor_pool.Default().FindServiceByName(service_name)
        rpc = service.FindMethodByName(name)
    except KeyError:
        return
    if deprecation := deprecation_of(rpc.GetOptions(), service.GetOptions(), service.file.GetOptions()):
        message = f"{service_name}.{name}: {deprecation.in_words()}"
        warnings.warn(message, DeprecationWarning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return how far above warn_if_deprecated() the caller's code is."""
    level, frame = 0, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    return level
