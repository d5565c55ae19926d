"""What the edge must know of the contract, read from its descriptor set so that nothing is written down twice."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.api.annotations_pb2 import http  # its stubs break those of gRPC
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from shop.system.v1.access_pb2 import access

from envoy.body_limits import MIN_BODY_BYTES, body_limit, largest_json

DESCRIPTOR_SET: Final = Path(__file__).parents[1] / "generated" / "shop.binpb"
"""The contract as `make generate` leaves it."""

OWN_PACKAGES: Final = "shop."
"""What tells the contract's own services from those it only imports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call a method over REST.

    Attributes:
        service: the full name of the method's service.
        method: the method's name in it.
        verb: the HTTP method, in capitals.
        path: the path template, as `/api/v1/users/{id}:changePassword`.
        body: the full name of the message that a JSON body holds, None if there is no body.
        is_public: whether anybody may call it, without a token.
        is_stream: whether it answers with a stream.
    """

    service: str
    method: str
    verb: str
    path: str
    body: str | None
    is_public: bool
    is_stream: bool

    @property
    def rpc(self) -> str:
        """The path of the method over gRPC."""
        return f"/{self.service}/{self.method}"

    @property
    def path_regex(self) -> str:
        """The paths of the template, as a regular expression.

        A variable stands for one segment without a colon, so that `{id}` is not taken for `{id}:verb` too.
        """
        literals = re.split(r"\{[^}]+\}", self.path)
        return "[^/:]+".join(re.escape(text) for text in literals)

    @property
    def path_pattern(self) -> str:
        """The paths of the template, as a Lua pattern: a variable stands for one segment."""
        literals = re.split(r"\{[^}]+\}", self.path)
        return "^" + "[^/]+".join(re.sub(r"(\W)", r"%\1", text) for text in literals) + "$"


class Contract:
    """The services, REST bindings and messages of a descriptor set."""

    def __init__(self, descriptor_set: bytes) -> None:
        files = FileDescriptorSet.FromString(descriptor_set).file
        own = [
            (f"{file.package}.{service.name}", service)
            for file in files
            if file.package.startswith(OWN_PACKAGES)
            for service in file.service
        ]
        self.services = sorted(name for name, _ in own)
        self.bindings = [
            binding for name, service in own for method in service.method for binding in _bindings(method, service=name)
        ]
        self._methods = {name: list(service.method) for name, service in own}
        self._messages = {
            name: message
            for file in files
            for root in file.message_type
            for name, message in _messages(root, scope=file.package)
        }

    def methods(self, service: str) -> list[str]:
        """Return the names of the service's methods with one answer."""
        return sorted(method.name for method in self._methods[service] if not method.server_streaming)

    def reads(self, service: str) -> list[str]:
        """Return the names of those of them that change nothing: that are bound to GET."""
        gets = {b.method for b in self.bindings if b.service == service and b.verb == "GET"}
        return [name for name in self.methods(service) if name in gets]

    def streams(self, service: str) -> list[str]:
        """Return the names of the service's methods that answer with a stream."""
        return sorted(method.name for method in self._methods[service] if method.server_streaming)

    def streamed(self) -> list[Binding]:
        """Return the bindings of the methods that answer with a stream."""
        return [binding for binding in self.bindings if binding.is_stream]

    def public(self) -> list[Binding]:
        """Return the bindings of the methods that anybody may call: only what says so is public."""
        return [binding for binding in self.bindings if binding.is_public]

    def public_writes(self) -> list[Binding]:
        """Return the bindings with which somebody without a token can change something, or try a password."""
        return [binding for binding in self.public() if binding.verb != "GET"]

    def verbs(self) -> list[str]:
        """Return the HTTP methods in use."""
        return sorted({binding.verb for binding in self.bindings})

    def creations(self, service: str) -> list[str]:
        """Return the names of the service's methods that make a resource (AIP-133): REST answers 201."""
        return sorted(
            {
                b.method
                for b in self.bindings
                if b.service == service and b.verb == "POST" and b.method.startswith("Create")
            }
        )

    def bodies(self) -> list[Binding]:
        """Return the bindings with a JSON body, the one with the longest template first."""
        return sorted((b for b in self.bindings if b.body), key=lambda b: (-len(b.path), b.path))

    def body_limit(self, service: str, method: str) -> int:
        """Return how many bytes a request of the method may have, over REST and over gRPC alike.

        A message takes less than the longest JSON that says the same.
        """
        return body_limit(self._request(service, method), self._messages)

    def largest_body(self, service: str, method: str) -> int:
        """Return how many bytes the longest usual JSON of a valid request of the method has.

        Raises:
            Unbounded: no rule bounds one of its fields; the exception names it.
        """
        return largest_json(self._request(service, method), self._messages)

    def large_bodies(self) -> list[tuple[Binding, int]]:
        """Return the bindings whose body may be larger than what every method takes, each with its limit in bytes."""
        limits = ((binding, self.body_limit(binding.service, binding.method)) for binding in self.bodies())
        return [(binding, limit) for binding, limit in limits if limit > MIN_BODY_BYTES]

    def fields(self) -> Mapping[str, Mapping[str, str | None]]:
        """Return the fields of every message that a body can hold, under both names that JSON allows.

        The value of a field is the message whose fields its objects hold. It is None where no name can be wrong, or
        none is expected: scalars, maps, and the well-known types, which have a JSON form of their own.
        """
        found: dict[str, dict[str, str | None]] = {}
        wanted = [binding.body for binding in self.bodies()]
        while wanted:
            name = wanted.pop()
            if name is None or name in found:
                continue
            fields = self._messages[name].field
            found[name] = {
                spelling: self._message_of(field) for field in fields for spelling in (field.name, field.json_name)
            }
            wanted.extend(found[name].values())
        return dict(sorted(found.items()))

    def _request(self, service: str, method: str) -> str:
        (name,) = (each.input_type for each in self._methods[service] if each.name == method)
        return name.removeprefix(".")

    def _message_of(self, field: FieldDescriptorProto) -> str | None:
        name = field.type_name.removeprefix(".")
        if field.type != FieldDescriptorProto.TYPE_MESSAGE or name.startswith("google.protobuf."):
            return None
        return None if self._messages[name].options.map_entry else name


def _bindings(method: MethodDescriptorProto, *, service: str) -> Iterator[Binding]:
    rule = method.options.Extensions[http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb is None:
            continue
        yield Binding(
            service=service,
            method=method.name,
            verb=verb.upper(),
            path=getattr(each, verb),
            body=_body(each, request=method.input_type.removeprefix(".")),
            is_public=method.options.Extensions[access].public,
            is_stream=method.server_streaming,
        )


def _body(rule: HttpRule, *, request: str) -> str | None:
    if rule.body in {"", "*"}:
        return request if rule.body else None
    raise ValueError(f"a body can only be the whole message, not its field {rule.body}")


def _messages(message: DescriptorProto, *, scope: str) -> Iterator[tuple[str, DescriptorProto]]:
    name = f"{scope}.{message.name}"
    yield name, message
    for nested in message.nested_type:
        yield from _messages(nested, scope=name)
