"""Callers of the edge, over REST and over gRPC, who get the same kind of answer to compare."""

from __future__ import annotations

import base64
import itertools
import json
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, cast
from urllib.parse import urlsplit

import grpc
import httpx
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from chassis.service import services
from tests.e2e.contract import Json, Rpc, as_json
from tests.support.reasons import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from google.protobuf.message import Message

    from tests.e2e.contract import RestCall

CLEAR_TEXT: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For the `verify` of clients of http:// URLs. By default httpx reads every authority, for 20 ms of CPU a client."""

# The edge prints them by name; parsing them needs the import.
_DETAILS: Final = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)

_TELL_TALES: Final = re.compile(
    r"traceback|exception|<class|\.py\b|site-packages|/work|/usr|/tmp|\bgrpc\._|psycopg|sqlalchemy|postgres|pydantic"
    r"|protovalidate|asyncio|\bselect\b.*\bfrom\b|\binsert into\b|\bupdate\b.*\bset\b|relation \"|envoy|upstream|lua"
    rf"|{'|'.join(service.name for service in services())}|127\.0\.0\.1|hard limit|soft limit|received message",
    re.IGNORECASE,
)
"""Text that would reveal the implementation to a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended, whichever way it was made.

    Attributes:
        code: the gRPC status; over REST the one that the body names, OK for a success.
        body: the reply, or the google.rpc.Status of the error, as JSON.
        http: the HTTP status; None over gRPC.
        retry_after: the header or trailer of this name, if any.
    """

    code: int
    body: Json
    http: int | None = None
    retry_after: str | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether it is an error."""
        return bool(self.code != code_pb2.OK)

    @property
    def reason(self) -> tuple[str, str]:
        """The domain and the reason of the error."""
        info = self.detail("ErrorInfo")
        return info["domain"], info["reason"]

    @property
    def fields(self) -> list[str]:
        """The fields that the error complains about."""
        return [each["field"] for each in self.detail("BadRequest").get("fieldViolations", ())]

    def detail(self, kind: str) -> Json:
        """Return the error's detail of the kind; empty if there is none."""
        wanted = f"type.googleapis.com/google.rpc.{kind}"
        return next((each for each in self.body.get("details", ()) if each["@type"] == wanted), {})


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends a token with each call that names none."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self.intercept_unary_unary(continuation, client_call_details, request)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = list(client_call_details.metadata or ())
        if all(name != "authorization" for name, _ in metadata):
            metadata.append(("authorization", f"Bearer {self._token}"))
        return continuation(_WithMetadata(client_call_details, metadata), request)


class _WithMetadata(grpc.ClientCallDetails):
    def __init__(self, details: Any, metadata: list[tuple[str, str | bytes]]) -> None:
        self.method, self.timeout, self.credentials = details.method, details.timeout, details.credentials
        self.wait_for_ready, self.compression, self.metadata = details.wait_for_ready, details.compression, metadata


@dataclass(slots=True)
class Edge:
    """Both doors of one edge, with nothing between the test and the wire: no retries, no request ids.

    Args:
        url: of the edge.
        token: the default access token of calls, an admin's.
        owners: access tokens by user id, for the one method that only the user may call.
    """

    url: str
    token: str
    owners: dict[str, str] = field(default_factory=dict)
    http: httpx.Client = field(init=False)
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        bearer = {"authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=CLEAR_TEXT, headers=bearer)
        options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 200)]
        plain = grpc.insecure_channel(self.authority, options)
        self.channel = grpc.intercept_channel(plain, _Bearer(self.token))

    @property
    def authority(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def rest(self, call: RestCall, *, headers: Mapping[str, str] | None = None) -> Outcome:
        """Make the call over REST."""
        headers = {**self.as_owner(call.path), **(headers or {})}
        return ask(self.http, call, headers=headers)

    def grpc(self, rpc: Rpc, request: Message | bytes, *, metadata: Sequence[tuple[str, str | bytes]] = ()) -> Outcome:
        """Make the call over gRPC; with bytes, whatever they are."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        if not metadata:
            metadata = tuple(self.as_owner(f"{getattr(request, 'id', '')}:{rpc.name}").items())
        return self.grpc_at(rpc.path, data, reply=rpc.reply, metadata=metadata, is_stream=rpc.is_stream)

    def as_owner(self, call: str) -> dict[str, str]:
        """Return the header for a change of a password: the token of the user whose it is, if it is known."""
        match = re.search(r"([0-9a-f-]{36}):changePassword$", call, re.IGNORECASE)
        token = self.owners.get(match[1]) if match else None
        return {"authorization": f"Bearer {token}"} if token else {}

    def grpc_at(
        self,
        path: str,
        data: bytes,
        *,
        reply: type[Message],
        metadata: Sequence[tuple[str, str | bytes]] = (),
        is_stream: bool = False,
    ) -> Outcome:
        """Make a call over gRPC to any path. Of a stream the second message is the answer, as with ask()."""
        method: Any = self.channel.unary_stream if is_stream else self.channel.unary_unary
        call = method(path, response_deserializer=reply.FromString)
        try:
            answer = call(data, timeout=30, metadata=metadata)
            if is_stream:
                stream, (_, answer) = answer, itertools.islice(answer, 2)
                stream.cancel()
            return Outcome(code=code_pb2.OK, body=as_json(answer))
        except grpc.RpcError as error:
            failed = cast("grpc.Call", error)
            trailers: dict[str, Any] = dict(cast("Any", failed.trailing_metadata()) or ())
            status = rpc_status.from_call(failed)
            if status is None:
                status = status_pb2.Status(code=failed.code().value[0], message=failed.details() or "")
            return Outcome(code=status.code, body=as_json(status), retry_after=trailers.get("retry-after"))

    def raw_grpc(self, rpc: Rpc, request: Message, *, headers: Mapping[str, str]) -> Outcome:
        """Make a gRPC call by hand, with headers that no gRPC library sends; for refusals only."""
        data = request.SerializeToString()
        framed = b"\0" + len(data).to_bytes(4, "big") + data
        response = self.http.post(
            rpc.path, content=framed, headers={"content-type": "application/grpc", "te": "trailers", **headers}
        )
        details = response.headers["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
        assert str(status.code) == response.headers["grpc-status"]
        return Outcome(code=status.code, body=as_json(status), retry_after=response.headers.get("retry-after"))

    def __enter__(self) -> Self:
        """Do nothing: both connect by themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.http.close()
        self.channel.close()


def ask(http: httpx.Client, call: RestCall, *, headers: Mapping[str, str]) -> Outcome:
    """Make the call over REST. Of a stream the second message is the answer: the first one only says that it lives."""
    arguments: Any = {"params": tuple(call.query), "json": call.body, "headers": headers}
    with http.stream(call.verb, call.path, **arguments) as response:
        if response.headers.get("content-type") != "text/event-stream":
            response.read()
            return rest_outcome(response)
        _, body = itertools.islice(server_sent(response), 2)
        return Outcome(code=code_pb2.OK, body=body, http=response.status_code)


def server_sent(response: httpx.Response) -> Iterator[Json]:
    """Yield the server-sent events of a response that is still being read. Each has its resume token as its id."""
    event_id = ""
    for line in response.iter_lines():
        if line:
            field, _, value = line.partition(": ")
            assert field in {"id", "data"}, line
            if field == "id":
                event_id = value
                continue
            message = json.loads(value)
            assert message["resumeToken"] == event_id
            yield message


def rest_outcome(response: httpx.Response) -> Outcome:
    """Return what the HTTP response says."""
    body: Any = response.json()
    code = code_pb2.OK if response.is_success else body["code"]
    return Outcome(code=code, body=body, http=response.status_code, retry_after=response.headers.get("retry-after"))


def require_clean_error(response: httpx.Response, *, may_be_5xx: bool = False) -> Outcome:
    """Return the refusal, once it is sure to have the one shape of errors and to tell nothing that it should not.

    Raises:
        AssertionError: it is no refusal, or not such a one.
    """
    shown = f"{response.request.method} {response.request.url} gave {response.status_code}: {response.text[:2000]}"
    assert 400 <= response.status_code < (600 if may_be_5xx else 500), shown
    assert response.headers["content-type"] == "application/json", shown
    outcome = rest_outcome(response)
    assert outcome.body.keys() == {"code", "message", "details"}, shown
    require_clean(outcome)
    assert REASONS[outcome.reason].http == response.status_code, shown
    return outcome


def require_clean(outcome: Outcome) -> None:
    """Return if the refusal names a reason of the contract and tells nothing that it should not.

    Raises:
        AssertionError: it does not.
    """
    assert outcome.is_refusal, outcome
    assert outcome.detail("ErrorInfo"), f"no ErrorInfo: {outcome}"
    assert outcome.reason in REASONS, outcome
    assert outcome.body["message"], outcome
    # Details hold our own names, such as fields and reasons; strings of a caller are repeated in the message only.
    assert not _TELL_TALES.search(outcome.body["message"]), outcome
    json_format.ParseDict(outcome.body, status_pb2.Status())


def code_of(name: str) -> int:
    """Return the number of a gRPC status."""
    return int(code_pb2.Code.Value(name))
