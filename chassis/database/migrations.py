"""Migrations of a service's database, by Alembic.

Alembic is imported where it is used and not above: to load it takes a fifth of a second too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, text

from chassis.database import connections, locks

if TYPE_CHECKING:
    from chassis.database.settings import DatabaseSettings


def upgrade(package: str, settings: DatabaseSettings) -> None:
    """Bring the database to the newest version. Does nothing when it is there already.

    Args:
        package: the service's package; its migrations are in `migrations/`.
        settings: the database, with a role that owns its tables.

    Raises:
        StartupError: the URL leads through a pooler, which has no session for a lock that outlives a transaction.
    """
    from alembic import command  # noqa: PLC0415  11 MB that a server has no use for
    from alembic.config import Config  # noqa: PLC0415  11 MB that a server has no use for

    config = Config()
    config.set_main_option("script_location", f"{package}:migrations")
    engine = create_engine("postgresql+psycopg://", creator=lambda: connections.connect_for_long(settings))
    try:
        with engine.connect() as connection:
            # Asked for again and again: a statement that waits for it would keep CREATE INDEX CONCURRENTLY waiting.
            while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": locks.MIGRATIONS}):
                connection.commit()
                time.sleep(0.2)
            # A migration that waits for a lock blocks all statements behind it: better to fail and try again.
            connection.execute(text("SET lock_timeout = '5s'"))
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def run_in_env() -> None:
    """Run the migrations that Alembic asks for; the whole of a service's `migrations/env.py`."""
    from alembic import context  # noqa: PLC0415  11 MB that a server has no use for

    context.configure(connection=context.config.attributes["connection"])
    with context.begin_transaction():
        context.run_migrations()
