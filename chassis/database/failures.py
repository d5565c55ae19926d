"""The meaning of a database error: for the caller, for the transaction, for the connection."""

import random
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
# The server also ends a transaction that waits too long for something else, as a relay's for a Redis that hangs.
_ENDED: Final = (errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout, errors.SnapshotTooOld)


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
