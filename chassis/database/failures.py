"""The meaning of a database error: for the caller, for the transaction, for the connection."""

import random
import re
from typing import Final

import psycopg
from psycopg import errors
from sqlalchemy import exc

from chassis.errors import DatabaseUnavailable

# A deadlock or a lost connection ends a transaction that may succeed when it is repeated. Three in a row are no chance.
ATTEMPTS: Final = 3

# The server is a standby now, or an operator has forbidden writes: another connection may lead to the primary.
_READ_ONLY: Final = errors.ReadOnlySqlTransaction
# The statement was prepared in another session: a pooler has put its own in between. Or the tables have changed since.
_FORGOTTEN: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
_CHANGED: Final = "cached plan must not change result type"
# Classes of SQLSTATE for conditions that pass: connection, credentials, rollback, resources, locks and recovery,
# shutdown and timeouts, the server's disk.
_PASSES: Final = frozenset({"08", "28", "40", "53", "55", "57", "58", "F0"})
# The messages of this class quote the value: `invalid input syntax for type uuid: "ada@example.com"`.
_DATA_EXCEPTION: Final = "22"
_LINE: Final = re.compile(r"^LINE \d+: .*", re.MULTILINE)
# The server also ends a transaction that waits too long for something else, as a relay's for a Redis that hangs.
_ENDED: Final = (errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout, errors.SnapshotTooOld)


def hide_values(error: psycopg.Error, *, is_statement_shown: bool = True) -> None:
    """Remove the values of rows from the text of a server's error, which ends up in logs and tracebacks.

    The server's first line stays, without DETAIL (`Key (email)=(ada@example.com) already exists.`) and CONTEXT.

    Args:
        error: its text is replaced; `diag` keeps all of it.
        is_statement_shown: whether the line of the statement that the server names stays too. It must not if the driver
            has put the values into the statement.
    """
    text = error.diag.message_primary
    if text is None:  # the driver's own error
        return
    if (error.sqlstate or "").startswith(_DATA_EXCEPTION):
        text = re.sub('".*"', '"…"', text, flags=re.DOTALL)
    line = _LINE.search(str(error)) if is_statement_shown else None
    error.args = (f"{text}\n{line[0]}" if line else text,)


def is_session_unusable(error: BaseException | None) -> bool:
    """Return whether the connection must be replaced though it lives. The statement had no effect."""
    is_outdated = isinstance(error, errors.FeatureNotSupported) and _CHANGED in str(error)
    return is_outdated or isinstance(error, (_READ_ONLY, *_FORGOTTEN))


def is_retryable(error: BaseException | None) -> bool:
    """Return whether the transaction was rolled back through no fault of its own."""
    if isinstance(error, exc.DBAPIError):
        # After a restart of the server every pooled connection is dead; the first to notice empties the pool.
        return error.connection_invalidated or is_retryable(error.orig)
    return isinstance(error, (errors.SerializationFailure, errors.DeadlockDetected)) or is_session_unusable(error)


def pause_s() -> float:
    """Return how long to wait before the next try: 10 to 50 ms, by chance.

    Of two transactions in a deadlock one continues when the other is rolled back. If that one began again at once, it
    could take the same row first, and both would be in the next deadlock.
    """
    return random.uniform(0.01, 0.05)  # noqa: S311  no secret


def to_domain_error(error: Exception) -> Exception:
    """Return the domain error for an error of the driver or of SQLAlchemy; a defect of ours stays what it is."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        passes = isinstance(cause, exc.TimeoutError)  # no connection of the pool is free
    elif cause.sqlstate is None:  # no answer: the connection was refused, lost or given up
        passes = isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError))
    else:
        passes = cause.sqlstate[:2] in _PASSES or isinstance(cause, _ENDED) or is_session_unusable(cause)
    return DatabaseUnavailable() if passes else error
