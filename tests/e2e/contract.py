"""The contract as callers see it, read from the descriptors: what there is to call, and how REST spells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from google.api import annotations_pb2
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from shop.system.v1.access_pb2 import access

from chassis.server.contract import service_names
from chassis.service import services

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

Json = dict[str, Any]
Place = tuple[str | int, ...]
"""Where something stands in a JSON request: ("items", 0, "productId")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestCall:
    """An HTTP request to be."""

    verb: str
    path: str
    query: list[tuple[str, str]]
    body: Json | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call a method over REST.

    Attributes:
        rpc: the method.
        verb: in capitals.
        template: of the path, such as `/api/v1/users/{id}`.
        has_body: whether all that is not in the path goes into the body, rather than into the query.
    """

    rpc: Rpc
    verb: str
    template: str
    has_body: bool

    def call(self, request: Json) -> RestCall:
        """Return the HTTP request that says the same as the message's JSON."""
        rest = dict(request)
        # The path first: what it names must not be said again in query or body.
        path = re.sub(r"\{(\w+)\}", lambda variable: quote(str(rest.pop(variable[1], "")), safe=""), self.template)
        if self.has_body:
            return RestCall(verb=self.verb, path=path, query=[], body=rest)
        query = [
            (name, str(each))
            for name, value in rest.items()
            for each in (value if isinstance(value, list) else [value])
        ]
        return RestCall(verb=self.verb, path=path, query=query, body=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """A method of the contract.

    Attributes:
        service: its service's full name.
        name: its name.
        request: the class of its requests.
        reply: the class of its replies.
        is_stream: whether it answers with a stream.
        is_public: whether anybody may call it, without a token.
    """

    service: str
    name: str
    request: type[Message]
    reply: type[Message]
    is_stream: bool
    is_public: bool

    @property
    def path(self) -> str:
        """The path over gRPC."""
        return f"/{self.service}/{self.name}"

    @property
    def creates(self) -> bool:
        """Whether REST answers 201."""
        return self.name.startswith("Create")

    @property
    def has_request_id(self) -> bool:
        """Whether a repetition with the same id gives the first answer again."""
        return "request_id" in self.request.DESCRIPTOR.fields_by_name

    @property
    def bindings(self) -> list[Binding]:
        """Every way to call it over REST."""
        pool = descriptor_pool.Default()
        method = pool.FindServiceByName(self.service).methods_by_name[self.name]
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        bindings = []
        for each in (rule, *rule.additional_bindings):
            verb = each.WhichOneof("pattern")
            if verb:
                bindings += [
                    Binding(rpc=self, verb=verb.upper(), template=template, has_body=each.body == "*")
                    for template in _templates(getattr(each, verb))
                ]
        return bindings

    def string_places(self) -> list[Place]:
        """Return where a request holds text; in a Struct, under one made-up key."""
        return list(_string_places(self.request.DESCRIPTOR))

    def is_secret(self, place: Place) -> bool:
        """Return whether the field of the request, or the one that it is in, is a secret by the contract."""
        return bool(self.request.DESCRIPTOR.fields_by_camelcase_name[str(place[0])].GetOptions().debug_redact)


def _templates(path: str) -> list[str]:
    """Return the paths that the edge serves of one in the contract: `/health/*` is one of each service."""
    return [service.health_path for service in services()] if path == "/health/*" else [path]


def _string_places(message: Descriptor, above: Place = ()) -> Iterator[Place]:
    for field in message.fields:
        here: Place = (*above, field.json_name, 0) if field.is_repeated else (*above, field.json_name)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield here
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.message_type.full_name == "google.protobuf.Struct":
                yield (*here, "note")
            else:
                yield from _string_places(field.message_type, here)


def _rpcs() -> Iterator[Rpc]:
    for service in service_names():
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            yield Rpc(
                service=service,
                name=method.name,
                request=message_factory.GetMessageClass(method.input_type),
                reply=message_factory.GetMessageClass(method.output_type),
                is_stream=method.server_streaming,
                is_public=method.GetOptions().Extensions[access].public,
            )


RPCS: Final = tuple(_rpcs())
BY_NAME: Final[Mapping[str, Rpc]] = {rpc.name: rpc for rpc in RPCS}
BINDINGS: Final = tuple(binding for rpc in RPCS for binding in rpc.bindings)


def name_of(subject: Rpc | Binding) -> str:
    """Return what a test about the method or binding is called."""
    return subject.name if isinstance(subject, Rpc) else f"{subject.rpc.name}-{subject.template}"


def as_json(message: Message) -> Json:
    """Return the message as the edge prints it."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def with_value(request: Json, place: Place, value: object) -> Json:
    """Return a copy of a JSON request with another value at the place, which need not exist yet."""
    return _with_value(request, place, value)


def _with_value(inside: Any, place: Place, value: object) -> Any:
    if not place:
        return value
    first, *others = place
    if isinstance(first, int):
        items = list(inside or [None])
        items[first] = _with_value(items[first], tuple(others), value)
        return items
    return {**(inside or {}), first: _with_value((inside or {}).get(first), tuple(others), value)}
