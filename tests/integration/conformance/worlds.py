"""Two shops to compare: the services with their databases, and the server that callers get for their tests."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from grpc import aio
from shop.user.v1 import session_service_pb2, user_service_pb2

from chassis.context import Role
from chassis.server.contract import service_names
from chassis.service import services
from chassis.testing import SIGNER, new_uuid
from tests.support.guards import modules
from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from protos.testing import ShopServer

_SERVED: Final = {"shop.system.v1.SystemService", *(name for service in services() for name in service.serves)}
RPCS: Final[Mapping[str, MethodDescriptor]] = {
    method.name: method
    for service in service_names()
    if service in _SERVED
    for method in descriptor_pool.Default().FindServiceByName(service).methods
}
"""Every rpc that the services of the tree serve, by its name."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Fields with random values, or values that depend on the time.
_RANDOM: Final = {"accessToken", "refreshToken", "nextPageToken", "x", "kid", "uptime", "memory", "service", "version"}
_TIMES: Final = {"createdAt", "updatedAt", "occurredAt", "accessExpiresAt", "expiresAt", "timestamp"}
# The shop's time passes by days; that of the services' tokens does not.
_LONG_S: Final = 100 * 24 * 3600
# A token is good for this time after it has expired, because clocks differ.
LEEWAY_S: Final = 5
_TRAILERS: Final = ("retry-after", "www-authenticate", "grpc-retry-pushback-ms")


@dataclass(frozen=True, slots=True)
class Person:
    """A user who is logged in."""

    id: str
    email: str
    token: str


@dataclass(slots=True)
class World:
    """One shop.

    Attributes:
        transcript: what each call was answered, with ids by the order in which they came.
    """

    addresses: Mapping[str, str]
    transcript: list[Any] = field(default_factory=list)
    _channels: dict[str, aio.Channel] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def token(self, *roles: Role, subject: str = "") -> str:
        """Return an access token with these roles."""
        raise NotImplementedError

    def expired_token(self) -> str:
        """Return an access token that was good."""
        raise NotImplementedError

    def short_token(self) -> str:
        """Return an access token that expires in a second or two."""
        raise NotImplementedError

    def advance(self, by: timedelta) -> None:
        """Let the shop's time pass."""
        raise NotImplementedError

    async def call(
        self, rpc: str, request: Message, *, token: str = "", metadata: Sequence[tuple[str, str]] = (), note: str = ""
    ) -> Any:
        """Return the answer, or None if the call is refused; write either to the transcript."""
        try:
            answer = await self._send(rpc, request, token=token, metadata=metadata)
        except aio.AioRpcError as error:
            self.transcript.append([self._plain(note or rpc), self._refusal(error)])
            return None
        self.transcript.append([self._plain(note or rpc), self._plain(MessageToDict(answer))])
        return answer

    def stream(self, rpc: str, request: Message, *, token: str) -> Any:
        """Return an open stream."""
        method = RPCS[rpc]
        opener = self._channel(method).unary_stream(
            _path(method),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        return opener(request, metadata=_bearer(token))

    async def read_to_end(self, stream: Any, *, note: str) -> None:
        """Write the messages of a stream but heartbeats, and the error with which it ends, to the transcript."""
        told = self.transcript
        try:
            async for message in stream:
                shown = self._plain(MessageToDict(message, descriptor_pool=descriptor_pool.Default()))
                if shown.keys() != {"resumeToken"}:
                    told.append([f"message of the {note}", shown])
        except aio.AioRpcError as error:
            told.append([note, self._refusal(error)])

    async def read_pages(self, rpc: str, request: Message, *, token: str, size: int) -> list[str]:
        """Read a list to its end by pages of this size; return the tokens of its pages."""
        page_request: Any = type(request)()
        page_request.CopyFrom(request)
        page_request.page_size = size
        tokens: list[str] = []
        while True:
            page = await self.call(rpc, page_request, token=token, note=f"{rpc} by {size}")
            if not page.next_page_token or len(tokens) > 20:
                return tokens
            page_request.page_token = page.next_page_token
            tokens.append(page.next_page_token)

    async def person(self, *, name: str = "") -> Person:
        """Return a new user who is logged in."""
        email = f"{name or 'ada'}-{self.number()}@example.com"
        new = user_service_pb2.CreateUserRequest(email=email, password=PASSWORD, display_name="Ada Lovelace")
        user = await self.call("CreateUser", new)
        session = await self.call(
            "CreateSession", session_service_pb2.CreateSessionRequest(email=email, password=PASSWORD)
        )
        assert session.user_id == user.id
        # Not the session's own token: this one outlives what a scenario lets pass.
        return Person(user.id, email, self.token(Role.USER, subject=user.id))

    def number(self) -> int:
        """Return the next number of this shop, for texts that differ."""
        return next(self._numbers)

    def record(self, note: str, shown: Any) -> None:
        """Write to the transcript what a scenario has seen."""
        self.transcript.append([note, self._plain(shown)])

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()

    async def _send(self, rpc: str, request: Message, *, token: str, metadata: Sequence[tuple[str, str]]) -> Any:
        method = RPCS[rpc]
        if method.server_streaming:
            stream = self.stream(rpc, request, token=token)
            first = await stream.read()
            stream.cancel()
            return first
        send = self._channel(method).unary_unary(
            _path(method),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        return await send(request, metadata=[*_bearer(token), *metadata], timeout=20)

    def _channel(self, method: MethodDescriptor) -> aio.Channel:
        package = method.containing_service.file.package
        if package not in self._channels:
            self._channels[package] = aio.insecure_channel(self.addresses[package])
        return self._channels[package]

    def _refusal(self, error: aio.AioRpcError) -> Any:
        trailers = dict(cast("Iterable[tuple[str, Any]]", error.trailing_metadata() or ()))
        status = Status.FromString(trailers.get("grpc-status-details-bin", b""))
        kept = {name: trailers[name] for name in _TRAILERS if name in trailers}
        return self._plain([error.code().name, MessageToDict(status, descriptor_pool=descriptor_pool.Default()), kept])

    def _plain(self, value: Any) -> Any:
        """Return the value without what differs from one run to the next."""
        if isinstance(value, dict):
            return {key: self._plain_field(key, each) for key, each in sorted(value.items()) if key not in _eventual()}
        if isinstance(value, list):
            return [self._plain(each) for each in value]
        if isinstance(value, str):
            return _UUID.sub(lambda found: self._ids.setdefault(found[0], f"id-{len(self._ids) + 1}"), value)
        return value

    def _plain_field(self, key: str, value: Any) -> Any:
        if key in _RANDOM:
            return f"<{key}>" if value else value
        if key == "retryDelay":  # one of the clocks stands still, the other one does not
            return f"{math.ceil(float(value[:-1]))}s"
        if key in _TIMES:
            return f"<{key}>"
        return self._plain(value)


@functools.cache
def _eventual() -> frozenset[str]:
    """Return the fields that consumers of events write a moment later: those do not run here."""
    return frozenset(name for module in modules("conformance") for name in getattr(module, "EVENTUAL", ()))


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


@dataclass(slots=True)
class Services(World):
    """The services, with an access token's key that the test has."""

    clock: Any = None

    def token(self, *roles: Role, subject: str = "") -> str:
        return SIGNER.token(subject=subject, roles=roles)

    def expired_token(self) -> str:
        return SIGNER.token(exp=int(datetime.now(UTC).timestamp()) - 60)

    def short_token(self) -> str:
        return SIGNER.token(exp=int(datetime.now(UTC).timestamp()) + 2 - LEEWAY_S)

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)


@dataclass(slots=True)
class Memory(World):
    """The server in memory."""

    server: ShopServer = field(default=cast("ShopServer", None))

    def token(self, *roles: Role, subject: str = "") -> str:
        return self.server.token(*roles, subject=subject, expires_in_s=_LONG_S)

    def expired_token(self) -> str:
        return self.server.token(Role.USER, expires_in_s=-60)

    def short_token(self) -> str:
        token = self.server.token(Role.USER, expires_in_s=1.5)
        self.advance(timedelta(seconds=LEEWAY_S))
        return token

    def advance(self, by: timedelta) -> None:
        self.server.clock.advance(by)


def packages(address_of: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses by package; SystemService is that of any service."""
    found = {served.rpartition(".")[0]: address_of[each.name] for each in services() for served in each.serves}
    return {**found, "shop.system.v1": next(iter(found.values()))}


async def settled() -> None:
    """Let a clock of milliseconds move, by which ids are sorted."""
    await asyncio.sleep(0.002)  # the next id has a later millisecond


__all__ = ["RPCS", "Memory", "Person", "Services", "World", "new_uuid", "packages", "settled"]
