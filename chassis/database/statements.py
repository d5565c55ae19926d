"""Single statements: run in the driver's own syntax, with many rows as one parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy import Connection, Row
    from sqlalchemy.exc import IntegrityError


def execute(connection: Connection, statement: str, *parameters: object) -> Sequence[Row[Any]]:
    """Return the rows of a statement in the driver's own syntax, `%s` for each parameter; none for one that gives none.

    For the statements of batches: SQLAlchemy takes longer to build a statement than a short one takes to run.
    """
    result = connection.exec_driver_sql(statement, parameters)
    return result.all() if result.returns_rows else ()


def uuid_array(ids: Iterable[UUID | None]) -> str:
    """Return ids as one parameter, to be cast to `uuid[]`: a fraction of the cost of a list."""
    return "{" + ",".join(["NULL" if each is None else str(each) for each in ids]) + "}"


def text_array(texts: Iterable[str]) -> str:
    """Return texts as one parameter, to be cast to `text[]`."""
    quoted = [each.replace("\\", "\\\\").replace('"', '\\"') for each in texts]
    return "{" + ",".join([f'"{each}"' for each in quoted]) + "}"


def as_json(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as one parameter, for `json_to_recordset`: a tenth of the cost of an array for each column."""
    return orjson.dumps(rows).decode()


def broken_constraint(error: IntegrityError) -> str:
    """Return the name of the constraint that a write broke, such as `users_email_key`."""
    cause = error.orig
    return (cause.diag.constraint_name or "") if isinstance(cause, psycopg.Error) else ""
