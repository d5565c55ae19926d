"""Compares what a load saw with what the database holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from chassis.testing import until
from tests.chaos.clients import rest_client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.chaos.record import Record

# The contract's table, on purpose not the service's own.
_NEXT: Mapping[str | None, set[str]] = {
    None: {"PENDING"},
    "PENDING": {"CONFIRMED", "CANCELLED"},
    "CONFIRMED": {"PROCESSING", "CANCELLED"},
    "PROCESSING": {"SHIPPED", "CANCELLED"},
    "SHIPPED": {"DELIVERED"},
}


class _Step(NamedTuple):
    from_status: str | None
    to_status: str


class _Message(NamedTuple):
    sequence: int
    type: str


@dataclass(slots=True)
class _Rows:
    """The rows of one order.

    Attributes:
        request_id: of the request that placed it: its product.
        history: its entries, oldest first.
        outbox: its events, in the order of writing.
        keys: request id → how many rows remember it, over all methods.
    """

    request_id: str
    status: str
    version: int
    history: list[_Step] = field(default_factory=list)
    outbox: list[_Message] = field(default_factory=list)
    keys: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The faults that were found; none if all fields are empty.

    Attributes:
        doubled: orders besides the one that was acknowledged, each with its request.
        lost: requests that were acknowledged and are not there.
        broken: orders whose rows contradict each other, each with what is wrong.
    """

    doubled: Sequence[str]
    lost: Sequence[str]
    broken: Sequence[str]

    @property
    def is_clean(self) -> bool:
        return not (self.doubled or self.lost or self.broken)


def validate(record: Record, *, orders_url: str) -> Findings:
    """Return the differences between the database and the responses. Every write must have been acknowledged."""
    with psycopg.connect(orders_url) as connection:
        found = _read(connection, record.buyers)
    acknowledged = set(record.placed.values())
    doubled = [f"{rows.request_id} as {order_id}" for order_id, rows in found.items() if order_id not in acknowledged]
    moves_of: dict[str, list[str]] = defaultdict(list)
    for request_id, order_id in record.moved.items():
        moves_of[order_id].append(request_id)
    lost: list[str] = []
    broken: list[str] = []
    for request_id, order_id in record.placed.items():
        if order_id not in found:
            lost.append(request_id)
            continue
        rows = found[order_id]
        lost += (key for key in (request_id, *moves_of[order_id]) if rows.keys[key] == 0)
        mistakes = _mistakes(rows, placed_by=request_id, moved_by=moves_of[order_id])
        broken += (f"order {order_id}: {mistake}" for mistake in mistakes)
    return Findings(doubled=doubled, lost=lost, broken=broken)


async def until_counted(record: Record, *, edge_url: str, token: str, timeout_s: float = 60) -> None:
    """Return when each order has counted for its buyer: then its event has crossed relay, Redis and consumer.

    Raises:
        TimeoutError: not all have in time, or some have twice.
    """

    async def are_counted() -> bool:
        async with rest_client(edge_url, token=token) as http:
            users = [(await http.get(f"/api/v1/users/{buyer}")).json() for buyer in record.buyers]
        return sum(user["orderCount"] for user in users) == len(record.placed)

    await until(are_counted, timeout_s=timeout_s)


def _mistakes(rows: _Rows, *, placed_by: str, moved_by: Sequence[str]) -> Iterator[str]:
    """Yield every way in which an order's rows contradict each other or its requests."""
    if rows.request_id != placed_by:
        yield f"is the order of request {rows.request_id}, was acknowledged to {placed_by}"
    if sum(step.from_status is None for step in rows.history) != 1:
        yield f"has not one first entry: {rows.history}"
    if not _leads_to(rows.status, rows.history):
        yield f"came to {rows.status} by {rows.history}"
    if len(rows.history) != rows.version or rows.version != 1 + len(moved_by):
        yield f"has version {rows.version}, {len(rows.history)} entries and {len(moved_by)} acknowledged moves"
    if [message.sequence for message in rows.outbox] != list(range(1, rows.version + 1)):
        yield f"has version {rows.version} and events {rows.outbox}"
    if [message.type for message in rows.outbox] != [_event_of(step) for step in rows.history]:
        yield f"has events {rows.outbox} for {rows.history}"
    if rows.keys != Counter((placed_by, *moved_by)):
        yield f"is remembered by {rows.keys}"


def _leads_to(end: str, history: Iterable[_Step]) -> bool:
    """Return whether the history is a path that the contract allows and ends here."""
    status: str | None = None
    for step in history:
        if step.from_status != status or step.to_status not in _NEXT.get(status, set()):
            return False
        status = step.to_status
    return status == end


def _event_of(step: _Step) -> str:
    if step.from_status is None:
        return "order.created"
    return "order.cancelled" if step.to_status == "CANCELLED" else "order.status_changed"


def _read(connection: psycopg.Connection, buyers: Sequence[str]) -> dict[str, _Rows]:
    """Return the rows of every order of the buyers, by its id."""
    query = """
        SELECT id::text, items -> 0 ->> 'productId' AS product, status, version
        FROM orders
        WHERE user_id = ANY (%s::uuid[])
    """
    found = {row[0]: _Rows(*row[1:]) for row in connection.execute(query, (list(buyers),))}
    ids = (list(found),)
    history = """
        SELECT order_id::text, from_status, to_status
        FROM order_events
        WHERE order_id = ANY (%s::uuid[])
        ORDER BY order_id, version
    """
    for order_id, *step in connection.execute(history, ids):
        found[order_id].history.append(_Step(*step))
    events = """
        SELECT subject::text, sequence, type
        FROM outbox
        WHERE subject = ANY (%s::uuid[])
        ORDER BY position
    """
    for order_id, *message in connection.execute(events, ids):
        found[order_id].outbox.append(_Message(*message))
    keys = """
        SELECT resource_id::text, request_id::text
        FROM idempotency_keys
        WHERE resource_id = ANY (%s::uuid[])
    """
    for order_id, request_id in connection.execute(keys, ids):
        found[order_id].keys[request_id] += 1
    return found
