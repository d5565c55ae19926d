"""Other ways to write a request of the contract: what one reader takes for the same, another may not.

Made from each REST binding and from each rpc, so a new one is varied too.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode, urlsplit

from google.rpc import error_details_pb2, status_pb2

from tests.e2e.contract import BINDINGS, Json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from tests.e2e.contract import Binding

_JSON: Final = ("content-type", "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request as it goes over the wire.

    Attributes:
        verb: as it is written.
        path: with what it should not hold.
        query: behind the question mark; None without one.
        headers: names and values, which may repeat.
        body: the bytes; None without a body.
        is_chunked: whether the body comes in chunks, without its length.
    """

    verb: str
    path: str
    query: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    is_chunked: bool = False

    @property
    def target(self) -> str:
        """Path and query."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    def with_header(self, name: str, value: str) -> Sent:
        """Return it with another value of the header."""
        return replace(self, headers=(*(each for each in self.headers if each[0] != name), (name, value)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer.

    Attributes:
        status: of HTTP.
        headers: by lower-case name.
        body: the bytes.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        """Whether it was done."""
        return self.status < 300 and self.headers.get("grpc-status", "0") == "0"

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of a refusal, over REST or over gRPC."""
        if self.headers.get("content-type") == "application/json":
            return str(self.json["details"][0]["reason"])
        details = self.headers.get("grpc-status-details-bin", "")
        status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
        info = error_details_pb2.ErrorInfo()
        return info.reason if any(each.Unpack(info) for each in status.details) else "nothing"


class Wire:
    """One connection to the edge, on which anything can be written."""

    def __init__(self, url: str, *, source: str = "127.0.0.1") -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=30, source_address=(source, 0)
        )

    def __enter__(self) -> Self:
        """Do nothing: it connects by itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self._connection.close()

    def ask(self, sent: Sent) -> Heard:
        """Return the answer; of a stream, its headers."""
        connection = self._connection
        try:
            connection.putrequest(sent.verb, sent.target, skip_accept_encoding=True)
            for name, value in sent.headers:
                connection.putheader(name, value)
            if sent.is_chunked:
                connection.putheader("transfer-encoding", "chunked")
            elif sent.body is not None:
                connection.putheader("content-length", str(len(sent.body)))
            connection.endheaders(sent.body, encode_chunked=sent.is_chunked)
            response = connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            connection.close()
            raise
        headers = {name.lower(): value for name, value in response.getheaders()}
        if headers.get("content-type") == "text/event-stream":
            connection.close()
            return Heard(status=response.status, headers=headers)
        return Heard(status=response.status, headers=headers, body=response.read())


def plain(binding: Binding, request: Json, *, token: str) -> Sent:
    """Return the request as the contract has it."""
    call = binding.call(request)
    body = None if call.body is None else json.dumps(call.body).encode()
    headers = (("authorization", f"Bearer {token}"), *((_JSON,) if body is not None else ()))
    query = urlencode(call.query) if call.query else None
    return Sent(verb=call.verb, path=call.path, query=query, headers=headers, body=body)


def is_in_the_contract(verb: str, path: str) -> bool:
    """Return whether it is the plain form of a binding."""
    patterns = ((each.verb, re.sub(r"\{\w+\}", "[^/:]+", each.template)) for each in BINDINGS)
    return any(verb == each and re.fullmatch(pattern, path) for each, pattern in patterns)


def variations(plain_form: Sent) -> Iterator[tuple[str, Sent]]:
    """Yield what else could be taken for the request, each with a name."""
    for name, path in _paths(plain_form.path):
        yield f"path {name}", replace(plain_form, path=path)
    for verb in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        if verb != plain_form.verb:
            yield f"verb {verb}", replace(plain_form, verb=verb)
    yield "verb in small letters", replace(plain_form, verb=plain_form.verb.lower())
    for header in ("x-http-method-override", "x-http-method", "x-method-override"):
        for verb in ("GET", "POST", "DELETE"):
            yield f"{header} {verb}", plain_form.with_header(header, verb)
    yield from _queries(plain_form)
    yield from _bodies(plain_form) if plain_form.body is not None else _bodies_where_none_belong(plain_form)


def _paths(path: str) -> Iterator[tuple[str, str]]:
    yield "slash at the end", f"{path}/"
    yield "slashes at the end", f"{path}///"
    yield "slash in front", f"/{path}"
    yield "every slash twice", path.replace("/", "//")
    yield "dot at the end", f"{path}/."
    yield "dots", f"{path}/x/.."
    yield "dots in front", f"/x/..{path}"
    yield "escaped dots", f"{path}/x/%2e%2E"
    yield "escaped dot", f"{path}/%2e"
    yield "escaped slash at the end", f"{path}%2f"
    yield "parameters", f"{path};a=b"
    yield "parameters in front", path.replace("/v1", ";a=b/v1")
    yield "colon at the end", f"{path}:"
    yield "verb of nobody", f"{path}:x"
    yield "capitals", path.upper()
    yield "one capital", path.replace("/api", "/Api").replace("/health", "/Health").replace("jwks", "Jwks")
    yield "escaped letter", path.replace("/a", "/%61").replace("/h", "/%68").replace("/j", "/%6a")
    yield "escaped letter inside", re.sub(r"s(?=\b)", "%73", path, count=1)
    yield "space", f"{path}%20"
    yield "tab", f"{path}%09"
    yield "line", f"{path}%0a"
    yield "backslash", f"{path}\\"
    yield "backslashes", path.replace("/", "\\").replace("\\", "/", 1)
    yield "fragment", f"{path}#x"
    yield "star", f"{path}*"
    yield "extension", f"{path}.json"
    yield "absolute", f"http://a{path}"
    yield "another version", path.replace("/v1", "/v2")
    for at in [match.start() for match in re.finditer("[:/]", path)][1:]:
        other = "/" if path[at] == ":" else ":"
        yield f"{other} at {at}", f"{path[:at]}{other}{path[at + 1 :]}"
        yield f"%3A at {at}", f"{path[:at]}%3A{path[at + 1 :]}"
        yield f"// at {at}", f"{path[:at]}//{path[at + 1 :]}"
        yield f"/:/ at {at}", f"{path[:at]}/:/{path[at + 1 :]}"
        yield f"/./ at {at}", f"{path[:at]}/./{path[at + 1 :]}"


def _queries(plain_form: Sent) -> Iterator[tuple[str, Sent]]:
    query = plain_form.query
    for name, other in {
        "empty": query or "",
        "two marks": f"?{query or ''}",
        "ampersands": f"&&{query or ''}&",
        "nothing named": f"=1&{query or ''}",
        "no field": f"{query or ''}&nope=1",
        "method": f"{query or ''}&_method=DELETE",
        "id": f"{query or ''}&id=0197c8d4-0000-7000-8000-000000000000",
        "escaped id": f"{query or ''}&%69d=0197c8d4-0000-7000-8000-000000000000",
        "etag twice": f"{query or ''}&etag=v1&etag=v2",
        "request id twice": f"{query or ''}&requestId=x&request_id=y",
        "token": f"{query or ''}&access_token=x",
        "alt": f"{query or ''}&alt=json",
        "semicolon": f"{query or ''};a=b",
    }.items():
        yield f"query {name}", replace(plain_form, query=other)
    if query:
        first, _, value = query.partition("&")[0].partition("=")
        spelt = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", first)
        yield "query first twice", replace(plain_form, query=f"{query}&{first}={value}")
        yield "query first again", replace(plain_form, query=f"{query}&{first}=1")
        yield "query both spellings", replace(plain_form, query=f"{query}&{spelt}={value}")
        yield "query escaped name", replace(plain_form, query=query.replace(first[0], f"%{ord(first[0]):x}", 1))
        yield "query brackets", replace(plain_form, query=query.replace("=", "[]=", 1))
        yield "query bare name", replace(plain_form, query=f"{query}&{first}")
        yield "query capitals", replace(plain_form, query=query.replace(first, first.upper(), 1))


def _bodies(plain_form: Sent) -> Iterator[tuple[str, Sent]]:
    body = plain_form.body or b""
    yield "chunked", replace(plain_form, is_chunked=True)
    yield "chunked and text", replace(plain_form, is_chunked=True).with_header("content-type", "text/plain")
    yield "expects 100", plain_form.with_header("expect", "100-continue")
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/jsonp",
        "application/json, text/plain",
        "text/plain, application/json",
        "application/grpc+json",
        "application/grpc-web+json",
        "",
    ):
        yield f"content-type {kind}", plain_form.with_header("content-type", kind)
    without = tuple(each for each in plain_form.headers if each[0] != "content-type")
    yield "no content-type", replace(plain_form, headers=without)
    yield "two content-types", replace(plain_form, headers=(*plain_form.headers, ("content-type", "text/plain")))
    yield "text first", replace(plain_form, headers=(*without, ("content-type", "text/plain"), _JSON))
    for kind in ("gzip", "deflate", "br", "zstd", "x-gzip", "identity, gzip", "GZIP", "nope"):
        yield f"content-encoding {kind}", plain_form.with_header("content-encoding", kind)
    yield "gzip", replace(plain_form.with_header("content-encoding", "gzip"), body=gzip.compress(body))
    yield "gzip unsaid", replace(plain_form, body=gzip.compress(body))


def _bodies_where_none_belong(plain_form: Sent) -> Iterator[tuple[str, Sent]]:
    for name, body in {
        "object": b"{}",
        "etag": b'{"etag":"v0"}',
        "misspelt": b'{"etagg":"v0"}',
        "id": b'{"id":"0197c8d4-0000-7000-8000-000000000000"}',
        "byte": b"1",
        "space": b" ",
        "text": b"text",
        "form": b"id=1",
        "null": b"null",
    }.items():
        for kind in ("application/json", "text/plain"):
            with_body = replace(plain_form, body=body).with_header("content-type", kind)
            yield f"body {name} as {kind}", with_body
            yield f"body {name} as {kind}, chunked", replace(with_body, is_chunked=True)
        yield f"body {name}", replace(plain_form, body=body)


def as_grpc(path: str, message: bytes, *, token: str) -> Sent:
    """Return a gRPC call as the contract has it, over HTTP/1.1."""
    headers = (
        ("authorization", f"Bearer {token}"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return Sent(verb="POST", path=path, headers=headers, body=b"\0" + len(message).to_bytes(4, "big") + message)


def grpc_variations(plain_form: Sent) -> Iterator[tuple[str, Sent]]:
    """Yield what else could be taken for the gRPC call."""
    for name, path in _paths(plain_form.path):
        yield f"path {name}", replace(plain_form, path=path)
    for verb in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
        yield f"verb {verb}", replace(plain_form, verb=verb)
    for query in ("", "x=1", "id=1", "/"):
        yield f"query {query}", replace(plain_form, query=query)
    for kind in (
        "application/grpc+proto",
        "application/grpc; charset=utf-8",
        "application/grpc+json",
        "application/grpc+x",
        "application/grpcx",
        "application/grpc-web+json",
        "application/grpc-web+x",
        "application/grpc-webx",
        "application/json",
        "application/x-protobuf",
        "text/plain",
        "application/grpc, application/json",
        "APPLICATION/GRPC",
        "",
    ):
        yield f"content-type {kind}", plain_form.with_header("content-type", kind)
    yield "no te", replace(plain_form, headers=tuple(each for each in plain_form.headers if each[0] != "te"))
    for value in ("gzip", "trailers, deflate", "deflate;q=0.5", ""):
        yield f"te {value}", plain_form.with_header("te", value)
