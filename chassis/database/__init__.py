"""A service's PostgreSQL database: statements on the loop, transactions in threads, retries, locks, migrations."""

from chassis.database.database import Database

__all__ = ["Database"]
