"""The order service: POST /api/v1/orders, once for each idempotency key; the user service is asked for the buyer."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import aiohttp
import orjson
from common import ENV, KnownCaller, Refused, create_app, tls_to
from fastapi import FastAPI, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

# The digits of each currency's smaller unit.
DIGITS = {"EUR": 2, "USD": 2, "GBP": 2, "CHF": 2, "SEK": 2, "PLN": 2, "JPY": 0, "KWD": 3}
NANOS = 1_000_000_000
NAME = r"\S"

SQL = Path(__file__).parents[1] / "same"
CREATE, KEPT = ((SQL / f"{name}.sql").read_text() for name in ("create_order", "kept_answer"))


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Money(Camel):
    currency_code: Annotated[str, Field(pattern="^[A-Z]{3}$")] = ""
    units: Annotated[int, Field(ge=0, lt=10**15)]
    nanos: Annotated[int, Field(ge=0, le=999_999_999)] = 0


class Item(Camel):
    product_id: Annotated[str, Field(min_length=1, max_length=64, pattern=NAME)]
    name: Annotated[str, Field(max_length=255, pattern=NAME)] = ""
    quantity: Annotated[int, Field(ge=1, le=10_000)]
    unit_price: Money


class NewOrder(Camel):
    user_id: UUID | None = None
    currency_code: Annotated[str, Field(pattern=f"^({'|'.join(DIGITS)})$")]
    items: Annotated[list[Item], Field(min_length=1, max_length=100)]
    request_id: UUID | None = None


@asynccontextmanager
async def resources(app: FastAPI) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=16, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=3)
    async with aiohttp.ClientSession(ENV["USER_SERVICE_URL"], connector=connector, timeout=timeout) as app.state.users:
        sweeping = asyncio.create_task(sweep())
        yield
        sweeping.cancel()


app = create_app(resources)
USERS_TLS = tls_to("user-svc")


@app.post("/api/v1/orders")
async def create_order(
    order: NewOrder,
    caller: KnownCaller,
    request: Request,
    authorization: Annotated[str, Header()] = "",
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    buyer = order.user_id or UUID(caller.id)
    key = order.request_id or uuid_of(idempotency_key or request.scope["request_id"])
    fingerprint = hashlib.sha256(order.model_dump_json(exclude={"request_id"}).encode()).digest()
    total, items, shown = price(order, buyer)
    if not caller.is_staff and str(buyer) != caller.id:
        raise unknown_buyer()
    await require_active(buyer, {"authorization": authorization, "x-request-id": request.scope["request_id"]})
    response = orjson.dumps(shown)
    event = {"orderId": shown["id"], "userId": shown["userId"], "total": shown["totalAmount"]}
    claim = (caller.id, key, fingerprint, shown["id"], response, shown["createdAt"])
    values = (buyer, order.currency_code, items, total, uuid.uuid4(), uuid.uuid4(), event)
    trace = request.headers.get("traceparent", "")
    if await app.state.pool.fetchrow(CREATE, *claim, *values, trace) is None:
        response = await kept_answer(caller.id, key, fingerprint)
    return Response(response, 201, media_type="application/json")


def uuid_of(key: str) -> UUID:
    try:
        return UUID(key.strip('"'))
    except ValueError:
        raise Refused(400, "INVALID_FIELDS", "idempotency-key must be a UUID") from None


def price(order: NewOrder, buyer: UUID) -> tuple[Decimal, list[dict[str, Any]], dict[str, Any]]:
    """Return the total, the items as stored, and the order as shown. Amounts are whole numbers of nanos."""
    currency, total, items, lines = order.currency_code, 0, [], []
    step = 10 ** (9 - DIGITS[currency])
    for item in order.items:
        if item.unit_price.currency_code not in {"", currency}:
            raise Refused(400, "CURRENCY_MISMATCH", "one currency an order")
        amount = item.unit_price.units * NANOS + item.unit_price.nanos
        if amount % step:
            raise Refused(400, "INVALID_FIELDS", f"a price in {currency} has {DIGITS[currency]} digits")
        total += amount * item.quantity
        line = {"productId": item.product_id, "name": item.name, "quantity": item.quantity}
        items.append({**line, "unitPrice": str(decimal(amount))})
        sums = {"unitPrice": money(amount, currency), "totalPrice": money(amount * item.quantity, currency)}
        lines.append({**line, **sums})
    if total >= 10**24:
        raise Refused(400, "AMOUNT_OUT_OF_RANGE", "the total is too large")
    now = datetime.now(UTC)
    shown = {
        "id": uuid.uuid4(),
        "userId": buyer,
        "status": "PENDING",
        "items": lines,
        "totalAmount": money(total, currency),
        "cancelReason": "",
        "createdAt": now,
        "updatedAt": now,
        "etag": "v1",
    }
    return decimal(total), items, shown


def decimal(nanos: int) -> Decimal:
    return Decimal(nanos).scaleb(-9)


def money(nanos: int, currency: str) -> dict[str, Any]:
    return {"currencyCode": currency, "units": str(nanos // NANOS), "nanos": nanos % NANOS}


async def require_active(buyer: UUID, headers: dict[str, str]) -> None:
    try:
        async with app.state.users.get(f"/api/v1/users/{buyer}", headers=headers, **USERS_TLS) as answer:
            user = orjson.loads(await answer.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Refused(503, "USER_SERVICE_UNAVAILABLE", "try again") from error
    if answer.status == 404:
        raise unknown_buyer()
    if answer.status != 200:
        raise Refused(503, "USER_SERVICE_UNAVAILABLE", "try again")
    if user["state"] != "ACTIVE":
        raise Refused(400, "USER_NOT_ACTIVE", "the buyer may not order")


def unknown_buyer() -> Refused:
    return Refused(400, "ORDERING_USER_NOT_FOUND", "there is no such buyer")


async def kept_answer(caller: str, key: UUID, fingerprint: bytes) -> bytes:
    row = await app.state.pool.fetchrow(KEPT, caller, key)
    if row is None or row["fingerprint"] != fingerprint:
        raise Refused(409, "REQUEST_ID_REUSED", "choose a new idempotency key")
    return row["response"]


async def sweep() -> None:
    """Answers are kept for a day."""
    while True:
        await app.state.pool.execute("DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'")
        await asyncio.sleep(600)
