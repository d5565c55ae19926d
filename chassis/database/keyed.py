"""Rows by their keys: found, or locked, for a whole batch in one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Uuid

from chassis.database.statements import execute, text_array, uuid_array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnClause, Connection

    from chassis.database.statement_pool import Fetch

T = TypeVar("T")
Key = TypeVar("Key", bound=UUID | str)


class Lookup(NamedTuple, Generic[Key]):
    """A row to read.

    Attributes:
        owner: the only user whose rows the caller may see; None for any.
    """

    key: Key
    owner: UUID | None = None


class KeyedRows(Generic[T]):
    """The rows of one table, by their keys.

    Args:
        columns: to read; the first one is the primary key, a UUID or a text.
        read: makes the resource of a row's columns.
        owner: the column of the row's owner. Without one, a lookup with an owner finds nothing.

    Attributes:
        by_keys: the statement that find() runs. Its rows have the number of their lookup, from 1, before the columns.
    """

    def __init__(
        self,
        columns: Sequence[ColumnClause[Any]],
        read: Callable[[Sequence[Any]], T],
        *,
        owner: ColumnClause[Any] | None = None,
    ) -> None:
        key = columns[0]
        is_uuid = isinstance(key.type, Uuid)
        kind, table = "uuid" if is_uuid else "text", str(key).partition(".")[0]
        # The owner is a condition of the query, so that no later line can forget it.
        allowed = "wanted.owner IS NULL" if owner is None else f"{owner} = coalesce(wanted.owner, {owner})"
        self.by_keys: Final = f"""
            SELECT wanted.n, {", ".join(map(str, columns))}
            FROM unnest(CAST(%s AS {kind}[]), CAST(%s AS uuid[])) WITH ORDINALITY AS wanted (id, owner, n)
            JOIN {table} ON {key} = wanted.id AND {allowed}
        """  # noqa: S608  put together from the names of columns
        # In the order of the key, so that two transactions that lock the same rows cannot lock each other.
        self._locked: Final = f"{self.by_keys} ORDER BY {key} FOR UPDATE OF {table}"
        self._locked_if_free: Final = f"{self._locked} SKIP LOCKED"
        self._array: Final[Callable[..., str]] = uuid_array if is_uuid else text_array
        self._read: Final = read

    async def find(self, fetch: Fetch, lookups: Sequence[Lookup[Any]]) -> list[T | None]:
        """Return for each lookup the resource, or None if there is none that the caller may see."""
        return self._in_order(await fetch(self.by_keys, *self.parameters(lookups)), len(lookups))

    def lock(self, connection: Connection, lookups: Sequence[Lookup[Any]], *, wait: bool) -> list[T | None]:
        """Return resources as find() does, and lock their rows until the transaction ends.

        Unless it may wait, the resources whose rows other transactions have locked are None.
        """
        statement = self._locked if wait else self._locked_if_free
        return self._in_order(execute(connection, statement, *self.parameters(lookups)), len(lookups))

    def parameters(self, lookups: Sequence[Lookup[Any]]) -> tuple[str, str]:
        """Return the parameters of `by_keys`."""
        return self._array(each.key for each in lookups), uuid_array(each.owner for each in lookups)

    def _in_order(self, rows: Sequence[Sequence[Any]], count: int) -> list[T | None]:
        read = self._read
        found: list[T | None] = [None] * count
        for n, *columns in rows:
            found[n - 1] = read(columns)
        return found
