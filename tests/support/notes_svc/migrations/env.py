"""Alembic's entry; all of it is in the chassis."""

from chassis.database.migrations import run_in_env

run_in_env()
