"""The table of the orders as it is read, for SQLAlchemy Core. migrations/ is what creates the tables."""

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

orders = Table(
    "orders",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("status", Text),
    Column("currency_code", Text),
    Column("items", JSONB),
    Column("cancel_reason", Text),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("version", Integer),
)
