"""The guard of the migrations: what it finds, and what it lets pass."""

from __future__ import annotations

import pytest

from tests.support.migration_faults import faults_in


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("ALTER TABLE orders ADD COLUMN note text NOT NULL", "inserts of the code that runs fail"),
        ("ALTER TABLE orders ADD note text, ADD COLUMN size int NOT NULL", "inserts of the code that runs fail"),
        ("ALTER TABLE orders ADD COLUMN key uuid NOT NULL DEFAULT gen_random_uuid()", "is a backfill"),
        ("ALTER TABLE orders ADD COLUMN low text GENERATED ALWAYS AS (lower(note)) STORED", "is a backfill"),
        ("ALTER TABLE orders ADD COLUMN user_id uuid REFERENCES users (id)", "after the column"),
        ("ALTER TABLE orders ADD CONSTRAINT orders_note_check CHECK (length(note) < 9)", "NOT VALID"),
        ("ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users (id)", "NOT VALID"),
        ("ALTER TABLE orders ADD CONSTRAINT orders_note_key UNIQUE (note)", "USING INDEX"),
        ("ALTER TABLE orders ALTER COLUMN note TYPE varchar(3)", "and copy"),
        ("ALTER TABLE orders ALTER note SET NOT NULL", "a valid CHECK"),
        ("ALTER TABLE orders\n    RENAME COLUMN note TO remark", "does not know the name"),
        ("ALTER TABLE orders RENAME TO purchases", "does not know the name"),
        ("ALTER TABLE orders DROP COLUMN note", "may use it"),
        ("ALTER TABLE orders DROP note", "may use it"),
        ("DROP TABLE IF EXISTS orders", "may use it"),
        ("CREATE INDEX orders_note_idx ON orders (note)", "CONCURRENTLY"),
        ("UPDATE orders SET note = ''", "write batches"),
        ("DELETE FROM orders", "write batches"),
        ("TRUNCATE orders", "may use it"),
    ],
)
def test_what_stops_or_blocks_the_code_that_runs_is_found(statement: str, why: str) -> None:
    [found] = faults_in(statement, new={"users"})

    assert why in found
    assert list(faults_in(statement, new={"orders"})) == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE orders (id uuid NOT NULL, note text NOT NULL)",
        "ALTER TABLE orders ADD COLUMN IF NOT EXISTS note text",
        "ALTER TABLE orders ADD COLUMN note text NOT NULL DEFAULT 'a, b', ADD COLUMN size int",
        "ALTER TABLE orders ALTER COLUMN note SET DEFAULT pg_current_xact_id()",
        "ALTER TABLE orders ADD CONSTRAINT orders_note_check CHECK (note <> '') NOT VALID",
        "ALTER TABLE orders VALIDATE CONSTRAINT orders_note_check",
        "ALTER TABLE orders ADD CONSTRAINT orders_note_key UNIQUE USING INDEX orders_note_key",
        "ALTER TABLE orders DROP CONSTRAINT orders_note_check",
        "CREATE INDEX CONCURRENTLY orders_note_idx ON orders (note)",
        "WITH batch AS (SELECT id FROM orders LIMIT 9) UPDATE orders SET note = '' FROM batch",
        "INSERT INTO orders (id) VALUES (1)",
    ],
)
def test_what_neither_stops_nor_blocks_it_passes(statement: str) -> None:
    assert list(faults_in(statement, new=set())) == []
