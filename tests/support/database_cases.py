"""Which cases of the databases' suites run: all of them by `make test-databases`, a few of each class otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Case = TypeVar("Case")

HAS_ALL: Final = os.environ.get("DATABASES") == "all"


def cases(every: Iterable[Case], *, everyday: Iterable[Case]) -> Sequence[Case]:
    """Return every case if DATABASES=all, else those of every day."""
    return list(every if HAS_ALL else everyday)
