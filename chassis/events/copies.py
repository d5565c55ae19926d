"""Copies of another service's resources, as its events describe them: the newest event of each is its row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chassis.database.statements import as_json, execute

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection


class Copies:
    """A table of copies.

    Args:
        table: its name; its primary key is the constraint `<table>_pkey`.
        columns: names and types; the first one is the primary key.
        copied_at: a further column, which takes the time of the transaction; empty for none.
        final: a condition on a row that is true once the row must not change any more; empty for none.
    """

    def __init__(self, table: str, columns: Mapping[str, str], *, copied_at: str = "", final: str = "") -> None:
        key, *others = columns
        names = [*columns, *([copied_at] if copied_at else ())]
        values = [*columns, *(["now()"] if copied_at else ())]
        replaced = [*others, *([copied_at] if copied_at else ())]
        # Written in the order of the key, so that two transactions that write the same rows cannot lock each other.
        self._put: Final = f"""
            INSERT INTO {table} ({", ".join(names)})
            SELECT {", ".join(values)}
            FROM json_to_recordset(CAST(%s AS json)) AS new ({", ".join(map(" ".join, columns.items()))})
            ORDER BY {key}
            ON CONFLICT ON CONSTRAINT {table}_pkey DO UPDATE
            SET {", ".join(f"{name} = excluded.{name}" for name in replaced)}
            {f"WHERE NOT ({table}.{final})" if final else ""}
        """  # noqa: S608  put together from constants

    def put(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
        """Write the newest state of different resources: values by the names of the columns."""
        if rows:
            execute(connection, self._put, as_json(rows))
