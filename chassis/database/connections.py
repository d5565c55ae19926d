"""Opens the connections to one database, directly or through a pooler.

A pooler in transaction mode, such as PgBouncer, gives each transaction any of its sessions. So a session cannot keep
timeouts or prepared statements: each transaction sets its timeouts, and nothing is prepared (ADR 32).
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
import structlog
from psycopg.pq import TransactionStatus
from typing_extensions import override

from chassis.database.failures import hide_values
from chassis.errors import StartupError

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from chassis.database.settings import DatabaseSettings
    from chassis.database.url import DatabaseUrl

log = structlog.get_logger(__name__)

T = TypeVar("T")

# The server answers within the statement timeout. If there is no answer this much later, the server or the network is
# dead, or the server is stopped: its kernel may still acknowledge packets, so TCP notices nothing.
_SILENCE_S: Final = 1.0

_NO_SESSION: Final = (
    "DATABASE_URL leads through a connection pooler, and migrations need a session of their own: "
    "set DATABASE_DIRECT_URL to the URL of PostgreSQL itself"
)

READ_MARK: Final = "SELECT current_setting('shop.connection', true)"
"""Gives the mark of the connection, if its options are those of the session."""


class NotReplicated(psycopg.OperationalError):
    """The wait of a commit for its standby was cancelled. PostgreSQL acknowledges it with no more than a warning."""


def is_not_replicated(notice: psycopg.errors.Diagnostic) -> bool:
    """Return whether the server warns that a commit is on its own disk only."""
    # The warning has no SQLSTATE of its own, and its text is in the server's language.
    return notice.source_function == "SyncRepWaitForLSN"


class ThreadConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection of a thread.

    Attributes:
        is_pooled: each transaction has another session.
        answer_timeout_s: the longest wait for an answer.
        is_on_one_disk: a commit was acknowledged that no standby has.
    """

    is_pooled: bool = False
    answer_timeout_s: float | None = None
    is_on_one_disk: bool = False

    @override
    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            result = super().wait(gen, interval, timeout or self.answer_timeout_s)
        except psycopg.Error as error:
            hide_values(error)
            is_lost = isinstance(error, psycopg.OperationalError)
            if is_lost and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()  # the answer would be taken for the next statement's
            raise
        if self.is_on_one_disk:
            self.close()
            raise NotReplicated
        return result

    def on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Remember a commit that no standby has; the server sends such notices beside its answers."""
        if is_not_replicated(notice):
            self.is_on_one_disk = True


class LongConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose statements may take any time."""

    @override
    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.Error as error:
            hide_values(error)
            raise


class Connector:
    """Opens connections to one database.

    Attributes:
        url: of the database.
        is_pooled: whether a pooler was found in between.
        timeouts: the statements that set the timeouts of one transaction.
        answer_timeout_s: the longest wait for the answer to a statement.
    """

    def __init__(self, settings: DatabaseSettings, *, name: str) -> None:
        milliseconds = {
            "statement_timeout": settings.statement_timeout_s * 1000,
            "lock_timeout": settings.lock_timeout_s * 1000,
            # A process that hangs between two statements of a transaction must not hold its locks.
            "idle_in_transaction_session_timeout": 10_000,
        }
        self.url: Final[DatabaseUrl] = settings.url
        self.is_pooled = False
        self.timeouts: Final = "; ".join(f"SET LOCAL {key} = {value:.0f}" for key, value in milliseconds.items())
        self.answer_timeout_s: Final = settings.statement_timeout_s + _SILENCE_S
        self._options: Final = " ".join(f"-c {key}={value:.0f}" for key, value in milliseconds.items())
        self._arguments: Final[dict[str, Any]] = {
            **settings.url.parameters,
            "application_name": name,
            # Results of batches are read as UTF-8, whatever the URL or PGCLIENTENCODING wants.
            "client_encoding": "utf8",
            "connect_timeout": settings.connect_timeout_s,
            # When the network dies, no answer ends the statement, and its thread would wait for a quarter of an hour.
            "tcp_user_timeout": round(1000 * self.answer_timeout_s),
            "keepalives_idle": 5,
            "keepalives_interval": 1,
        }

    def arguments(self, mark: str, *, more: str = "") -> dict[str, Any]:
        """Return the arguments of a connection to the server itself.

        Args:
            mark: a word that no other connection has.
            more: options beside the timeouts: `-c name=value`.
        """
        # The URL's options come first: if two options set one parameter, the last one counts.
        options = (self.url.parameters.get("options", ""), self._options, f"-c shop.connection={mark}", more)
        return {**self._arguments, "options": " ".join(filter(None, options)), "autocommit": True}

    def pooled_arguments(self) -> dict[str, Any]:
        """Return the arguments of a connection to a pooler."""
        return {**self._arguments, "autocommit": True, "prepare_threshold": None}

    def connect(self) -> ThreadConnection:
        """Return a connection for a thread.

        Raises:
            psycopg.OperationalError: none can be opened.
        """
        connection = None if self.is_pooled else self._connect_directly()
        if connection is None:
            connection = ThreadConnection.connect(**self.pooled_arguments())
            connection.is_pooled = True
        else:
            connection.autocommit = False
        connection.answer_timeout_s = self.answer_timeout_s
        connection.add_notice_handler(connection.on_notice)
        return connection

    def _connect_directly(self) -> ThreadConnection | None:
        mark = new_mark()
        try:
            connection = ThreadConnection.connect(**self.arguments(mark))
        except psycopg.OperationalError as error:
            self.require_pooler(error)
            return None
        try:
            connection.answer_timeout_s = self.answer_timeout_s
            if connection.execute(READ_MARK).fetchone() == (mark,):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        self.found_pooler()
        return None

    def require_pooler(self, error: psycopg.OperationalError) -> None:
        """Remember a pooler if the error shows that one has refused the connection's options; else raise the error."""
        if not are_options_refused(error):
            raise error
        self.found_pooler()

    def found_pooler(self) -> None:
        """Remember that a pooler is in between."""
        if not self.is_pooled:
            log.info("database.pooler_found", database=self.url.database)
        self.is_pooled = True


def connect_for_long(settings: DatabaseSettings) -> LongConnection:
    """Return a connection to the server itself, by `direct_url` if there is one; its statements may take any time.

    Raises:
        StartupError: a pooler is in between.
    """
    mark = new_mark()
    parameters = (settings.direct_url or settings.url).parameters
    options = f"{parameters.get('options', '')} -c shop.connection={mark}".strip()
    arguments: dict[str, Any] = {**parameters, "options": options, "autocommit": True}
    try:
        connection = LongConnection.connect(**arguments | {"connect_timeout": settings.connect_timeout_s})
    except psycopg.OperationalError as error:
        if are_options_refused(error):
            raise StartupError(_NO_SESSION) from None
        raise
    try:
        if connection.execute(READ_MARK).fetchone() == (mark,):
            connection.autocommit = False
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    raise StartupError(_NO_SESSION)


def new_mark() -> str:
    """Return a word that no other connection has."""
    return secrets.token_hex(8)


def are_options_refused(error: psycopg.OperationalError) -> bool:
    """Return whether a pooler has refused the options of a connection."""
    # A refused connection has no SQLSTATE. These are the texts of PgBouncer, old and new, and of RDS Proxy.
    return "unsupported startup parameter" in str(error) or "command-line options" in str(error)
