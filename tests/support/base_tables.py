"""The tables that every service has, in a database that belongs to none."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

from chassis.idempotency.base_tables import base_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from chassis.keys import KeyType


class _Operations:
    """Stands for `alembic.op` in base_tables(): each statement is committed at once."""

    def __init__(self, execute: Callable[[str], object]) -> None:
        self._execute = execute

    def execute(self, sqltext: str) -> None:
        self._execute(sqltext)

    def get_context(self) -> Any:
        return self

    def autocommit_block(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def create_base_tables(execute: Callable[[str], object], *, key: KeyType = "uuid") -> None:
    """Create the tables with a function that runs one statement, outside of a transaction."""
    base_tables(cast("Any", _Operations(execute)), key=key)
