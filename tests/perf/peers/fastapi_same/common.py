"""What both services share: the pool, tokens, the JSON log, metrics, errors."""

import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import jwt
import orjson
from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest

STAFF = frozenset({"SUPPORT", "ADMIN", "SERVICE"})
CLAIMS = ["sub", "exp", "iat", "jti", "sid", "roles"]
ENV = os.environ
MAX_TOKENS = int(ENV["TOKEN_MEMORY"])

DURATION = Histogram(
    "http_request_duration_seconds",
    "Duration of HTTP requests in seconds",
    ["method", "route", "status_code"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)


class Refused(Exception):
    def __init__(self, status: int, reason: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.details = status, reason, details


@dataclass(frozen=True, slots=True)
class Caller:
    id: str
    is_staff: bool
    expires_s: float


keys = jwt.PyJWKClient(ENV["JWKS_URL"], lifespan=300)
# Verified tokens, the oldest first: a signature costs as much as the rest of a request.
verified: dict[str, Caller] = {}


async def authenticated(request: Request, authorization: Annotated[str, Header()] = "") -> Caller:
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer":
        raise Refused(401, "TOKEN_INVALID", "send an access token")
    caller = verified.get(token)
    if caller is None or caller.expires_s < time.time():
        caller = verify(token)
        if verified and len(verified) >= MAX_TOKENS:
            del verified[next(iter(verified))]
        if MAX_TOKENS > 0:
            verified[token] = caller
    request.scope["caller"] = caller.id
    return caller


def verify(token: str) -> Caller:
    """Blocks for a request when the keys are fetched, once in five minutes."""
    own = {"issuer": ENV["TOKEN_ISSUER"], "audience": ENV["TOKEN_AUDIENCE"], "options": {"require": CLAIMS}}
    try:
        if jwt.get_unverified_header(token).get("typ") != "at+jwt":
            raise jwt.InvalidTokenError
        claims = jwt.decode(token, keys.get_signing_key_from_jwt(token), algorithms=["EdDSA"], leeway=5, **own)
    except jwt.PyJWTError as error:
        raise Refused(401, "TOKEN_INVALID", "the access token is not valid: log in again") from error
    return Caller(claims["sub"], not STAFF.isdisjoint(claims["roles"]), claims["exp"] + 5)


KnownCaller = Annotated[Caller, Depends(authenticated)]


class Observed:
    """One JSON line and one observation a request, around the whole application."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.log = Path(ENV["LOG_FILE"]).open("ab", buffering=65536)  # noqa: SIM115  as long as the process
        self.service = ENV["SERVICE_NAME"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 500
        request_id = dict(scope["headers"]).get(b"x-request-id", b"").decode() or str(uuid.uuid4())
        scope["request_id"] = request_id

        async def note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            took_s = time.perf_counter() - start
            route = scope.get("route")
            DURATION.labels(scope["method"], route.path if route else "none", status).observe(took_s)
            line = {"time": time.time(), "service": self.service, "request_id": request_id, "method": scope["method"]}
            line |= {"path": scope["path"], "status": status, "duration_s": took_s, "caller": scope.get("caller")}
            self.log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return None


def as_json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


def tls_to(name: str) -> dict[str, Any]:
    """Return what aiohttp needs to call the service of this name with our certificate."""
    folder = Path(ENV["TLS_FOLDER"])
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return {"ssl": context, "server_hostname": name}


async def prepare(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
    )


def create_app(also: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        options = {"min_size": 10, "max_size": 10, "command_timeout": 5, "init": prepare}
        async with asyncpg.create_pool(ENV["DATABASE_URL"], **options) as app.state.pool:
            if also is None:
                yield
            else:
                async with also(app):
                    yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    app.add_middleware(Observed)

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        return as_json({"reason": error.reason, "message": str(error), "details": error.details}, error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        details = [{"field": ".".join(map(str, each["loc"])), "message": each["msg"]} for each in error.errors()]
        return as_json({"reason": "INVALID_FIELDS", "message": "the request is not valid", "details": details}, 400)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app
