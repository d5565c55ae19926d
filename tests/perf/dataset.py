"""The rows that a benchmark begins with, and what is asked about them."""

from __future__ import annotations

import base64
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import psycopg
from google.type.money_pb2 import Money
from shop.order.v1.order_service_pb2 import CreateOrderItem, CreateOrderRequest
from shop.user.v1.user_service_pb2 import GetUserRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from google.protobuf.message import Message

USERS: Final = 100_000
_ASKED: Final = 20_000  # random choices, before the same come again

# Ids of version 7, as the services make them; these come before every id that is made while measuring.
_ID_SQL: Final = "('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"

# The peers' table of users is the service's, so that they read and answer the same.
PEER_USERS_DDL: Final = """
CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text,
    email_key text UNIQUE,
    display_name text NOT NULL,
    profile jsonb,
    state text NOT NULL,
    roles text[] NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL
)
"""
# The table of orders of the Node.js article (docs/from-the-nodejs-article.md), with the one index that its reads need.
PEER_ORDERS_DDL: Final = """
CREATE TABLE orders (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    status text NOT NULL,
    currency_code text NOT NULL,
    items jsonb NOT NULL,
    total_amount numeric(24, 9) NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX orders_user_id_idx ON orders (user_id)
"""

_FILL_USERS: Final = f"""
INSERT INTO users (id, email, email_key, display_name, profile, state, roles, password_hash, created_at, updated_at,
                   version)
SELECT {_ID_SQL}, 'user' || n || '@example.com', 'user' || n || '@example.com', 'User ' || n,
       '{{"locale": "en", "newsletter": true}}', 'ACTIVE', '{{USER}}', '', now(), now(), 1
FROM generate_series(1, %s) AS n
"""

_FILL_ORDERS: Final = (
    f"""
INSERT INTO orders (id, user_id, status, currency_code, items, total_amount, cancel_reason, created_at, updated_at,
                    version)
SELECT {_ID_SQL}, {_ID_SQL}, 'PENDING', 'EUR',
       '[{{"productId": "book", "name": "A book", "quantity": 2, "unitPrice": "12.5"}}]', 25, '', now(), now(), 1
FROM generate_series(1, %s) AS n
""",
    f"""
INSERT INTO order_events (id, order_id, from_status, to_status, reason, occurred_at)
SELECT {_ID_SQL}, {_ID_SQL}, NULL, 'PENDING', '', now() FROM generate_series(1, %s) AS n
""",
    f"""
INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at, published_at)
SELECT {_ID_SQL}, 'order.created', {_ID_SQL}, 1, '{{}}', '', now(), now() FROM generate_series(1, %s) AS n
""",
    f"""
INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, resource_id, response, created_at)
SELECT 'a caller', '/shop.order.v1.OrderService/CreateOrder', {_ID_SQL}, '\\x00', {_ID_SQL}, '{{}}', now()
FROM generate_series(1, %s) AS n
""",
)


def user_id(number: int) -> str:
    """Return the id of the user, or order, that was loaded with this number, from 1."""
    return f"01900000-0000-7000-8000-{number:012x}"


def fill_users(url: str, rows: int) -> None:
    """Load users. The URL is the superuser's, as it is below."""
    _fill(url, [_FILL_USERS], rows=rows)


def fill_orders(url: str, rows: int) -> None:
    """Replace all orders by this number, with their history, published events and stored responses."""
    _execute(url, "TRUNCATE orders, order_events, outbox, idempotency_keys CASCADE")
    _fill(url, _FILL_ORDERS, rows=rows)


def count_of(url: str, rows: str) -> int:
    """Return how many rows there are: of a table, or `table WHERE …`."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {rows}".encode()).fetchone()
    assert row
    return int(row[0])


def _fill(url: str, statements: Sequence[str], *, rows: int) -> None:
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda statement: _execute(url, statement, rows), statements))
    with psycopg.connect(url, autocommit=True) as connection:
        # As in production after hours of autovacuum: statistics, and pages marked as visible to all.
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _execute(url: str, statement: str, *parameters: int) -> None:
    with psycopg.connect(url) as connection:
        # No foreign key to look up, a million times.
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement.encode(), parameters)


def write_requests(folder: Path) -> None:
    """Write what the generators of load send: one request a line, in an order that is random and always the same."""
    write_messages(folder, prefix="", users=USERS)
    asked = _asked(USERS)
    _write(folder / "get_user.paths", [f"/api/v1/users/{each}" for each in asked])
    _write(folder / "orders.json", [json.dumps(order_json(each)) for each in asked])
    _write(folder / "peer_orders.json", [json.dumps(peer_order_json(each)) for each in asked])


def write_messages(folder: Path, *, prefix: str, users: int) -> None:
    """Write the same for gRPC, of this number of users, to `<prefix>get_user.b64` and `<prefix>create_order.b64`."""
    asked = _asked(users)
    _write(folder / f"{prefix}get_user.b64", [as_line(GetUserRequest(id=each)) for each in asked])
    _write(folder / f"{prefix}create_order.b64", [as_line(order_message(each)) for each in asked])


def _asked(users: int) -> list[str]:
    return [user_id(number) for number in random.Random(1).choices(range(1, users + 1), k=_ASKED)]


def order_json(buyer: str) -> dict[str, Any]:
    """Return the body of a new order of two books over REST."""
    price = {"currencyCode": "EUR", "units": "12", "nanos": 500_000_000}
    item = {"productId": "book", "name": "A book", "quantity": 2, "unitPrice": price}
    return {"userId": buyer, "currencyCode": "EUR", "items": [item]}


def peer_order_json(buyer: str) -> dict[str, Any]:
    """Return the same for Express, whose price is a JSON number, as in the Node.js article."""
    item = {"productId": "book", "name": "A book", "quantity": 2, "unitPrice": 12.5}
    return {"userId": buyer, "currencyCode": "EUR", "items": [item]}


def order_message(buyer: str) -> CreateOrderRequest:
    """Return the same over gRPC, with no request id."""
    price = Money(currency_code="EUR", units=12, nanos=500_000_000)
    item = CreateOrderItem(product_id="book", name="A book", quantity=2, unit_price=price)
    return CreateOrderRequest(user_id=buyer, currency_code="EUR", items=[item])


def as_line(message: Message) -> str:
    """Return a message as the generator of gRPC load reads it."""
    return base64.b64encode(message.SerializeToString()).decode()


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
