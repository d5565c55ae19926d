"""Migrations of a service's database, by Alembic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, text

from chassis.database import connections, locks
from chassis.errors import StartupError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPICursor

    from chassis.database.settings import DatabaseSettings

# The comment on Alembic's table names the package. The versions of all services count from 0001, so that without it the
# database of another service would pass for a newer or an older one of this service.
_OWNER: Final = text("SELECT obj_description(to_regclass('alembic_version'), 'pg_class')")
# A migration that waits for a table blocks all statements behind it: better to fail and try again.
_LOCK_TIMEOUT_S: Final = 5
# CREATE and DROP INDEX CONCURRENTLY wait for every older transaction, such as pg_dump's. Reads and writes do not wait
# for them meanwhile. Below the 270 s that the chart gives a migration, so that its log says what it waited for.
_CONCURRENT_TIMEOUT_S: Final = 240


def upgrade(
    package: str,
    settings: DatabaseSettings,
    *,
    lock_timeout_s: float = _LOCK_TIMEOUT_S,
    concurrent_timeout_s: float = _CONCURRENT_TIMEOUT_S,
) -> None:
    """Bring the database to the newest version. Does nothing when it is there already, or newer than this code.

    Code that went back to an earlier version works with the newer tables, because migrations expand them first.

    Args:
        package: the service's package; its migrations are in `migrations/`.
        settings: the database, with a role that owns its tables.
        lock_timeout_s: how long a statement waits for a lock.
        concurrent_timeout_s: how long a CONCURRENTLY waits for other transactions.

    Raises:
        StartupError: the URL leads through a pooler, which has no session for a lock that outlives a transaction; or to
            the database of another service.
    """
    config = Config()
    config.set_main_option("script_location", f"{package}:migrations")
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connections.connect_for_long(settings), hide_parameters=True
    )
    _wait_longer_for_concurrently(engine, lock_timeout_s=lock_timeout_s, concurrent_timeout_s=concurrent_timeout_s)
    try:
        with engine.connect() as connection:
            _take_lock(connection)
            connection.execute(text(_lock_timeout(lock_timeout_s)))
            connection.commit()
            _require_own(connection, package)
            script = ScriptDirectory.from_config(config)
            found = set(MigrationContext.configure(connection).get_current_heads())
            connection.commit()
            if newer := found - {each.revision for each in script.walk_revisions()}:
                print(f"The database is newer than this code, at {', '.join(sorted(newer))}: nothing is changed")  # noqa: T201  the answer
                return
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            if found != set(script.get_heads()):
                connection.execute(text(f"COMMENT ON TABLE alembic_version IS '{package}'"))
                connection.commit()
    finally:
        engine.dispose()


def _take_lock(connection: Connection) -> None:
    # Polled: CREATE INDEX CONCURRENTLY would wait for every statement that waits for the lock.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": locks.MIGRATIONS}):
        connection.commit()
        time.sleep(0.2)


def _wait_longer_for_concurrently(engine: Engine, *, lock_timeout_s: float, concurrent_timeout_s: float) -> None:
    def lengthen(_connection: Connection, cursor: DBAPICursor, statement: str, *_others: object) -> None:
        if "CONCURRENTLY" in statement:
            cursor.execute(_lock_timeout(concurrent_timeout_s))

    def shorten(_connection: Connection, cursor: DBAPICursor, statement: str, *_others: object) -> None:
        if "CONCURRENTLY" in statement:
            cursor.execute(_lock_timeout(lock_timeout_s))

    event.listen(engine, "before_cursor_execute", lengthen)
    event.listen(engine, "after_cursor_execute", shorten)


def _lock_timeout(seconds: float) -> str:
    return f"SET lock_timeout = {1000 * seconds:.0f}"


def _require_own(connection: Connection, package: str) -> None:
    owner = connection.scalar(_OWNER)
    if owner not in {None, package}:
        raise StartupError(f"DATABASE_URL leads to the database of {owner}, and {package} needs one of its own")


def run_in_env() -> None:
    """Run the migrations that Alembic asks for; the whole of a service's `migrations/env.py`."""
    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
