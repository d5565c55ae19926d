"""The tables of the orders, as SQLAlchemy Core sees them. migrations/ is what creates them."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, Integer, MetaData, Numeric, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

_metadata = MetaData()

orders = Table(
    "orders",
    _metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("status", Text),
    Column("currency_code", Text),
    Column("items", JSONB),
    Column("total_amount", Numeric(24, 9)),
    Column("cancel_reason", Text),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("version", Integer),
)
