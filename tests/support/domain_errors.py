"""Every domain error of the chassis and of the services, made from facts that differ in everything."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from chassis.errors import DomainError, FieldViolation
from tests.support.guards import packages

_NUMBERS: Final = itertools.count(1001)

# Arguments for an error, by the type of the parameter: another value at each call.
_FACTS: Final[dict[Any, Callable[[], object]]] = {
    str: lambda: f"fact{next(_NUMBERS)}",
    int: lambda: next(_NUMBERS),
    float: lambda: float(next(_NUMBERS)),
    UUID: uuid4,
    Iterable[str]: lambda: [f"fact{next(_NUMBERS)}", f"fact{next(_NUMBERS)}"],
    Sequence[FieldViolation]: lambda: [FieldViolation(f"fact{next(_NUMBERS)}", "must be right") for _ in "ab"],
}
_NAMES: Final = {"UUID": UUID, "Iterable": Iterable, "Mapping": Mapping, "Sequence": Sequence}


def _kinds_of(base: type[DomainError]) -> list[type[DomainError]]:
    return [kind for direct in base.__subclasses__() for kind in (direct, *_kinds_of(direct))]


def _all_kinds() -> list[type[DomainError]]:
    for package in packages():
        if importlib.util.find_spec(f"{package}.errors"):
            importlib.import_module(f"{package}.errors")
    ours = {kind for kind in _kinds_of(DomainError) if kind.__module__.partition(".")[0] in packages()}
    with_reason = {kind for kind in ours if hasattr(kind, "reason")}
    return sorted(with_reason, key=lambda kind: (kind.__module__, kind.__name__))


ERRORS: Final = _all_kinds()
"""Those that have a reason."""


def an_error(kind: type[DomainError]) -> DomainError:
    """Return an error of the kind, from facts that no other has."""
    parameters = inspect.signature(kind, eval_str=True, locals=_NAMES).parameters.values()
    required = [each for each in parameters if each.default is each.empty]
    positional = [_FACTS[each.annotation]() for each in required if each.kind is not each.KEYWORD_ONLY]
    keywords: dict[str, Any] = {
        each.name: _FACTS[each.annotation]() for each in required if each.kind is each.KEYWORD_ONLY
    }
    return kind(*positional, **keywords)


def name_of(kind: type[DomainError]) -> str:
    """Return what a test of the kind is called."""
    return f"{kind.__module__}.{kind.__name__}"
