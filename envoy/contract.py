"""The parts of the contract that the edge needs, read from its descriptor set, so that none is repeated by hand."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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

from chassis.service import services
from envoy.body_limits import body_limit, largest_json
from protos.deprecation import Deprecation, deprecation_of

DESCRIPTOR_SET: Final = Path(__file__).parents[1] / "generated" / "shop.binpb"
"""The contract as `make generate` writes it."""

OWN_PACKAGES: Final = "shop."
"""The prefix of the contract's own packages; others are imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call a method over REST.

    Attributes:
        service: the full name of the method's service.
        method: the method's name in it.
        verb: the HTTP method, in capitals.
        path: the path template, as `/api/v1/users/{id}:changePassword`. The contract's `/health/*` becomes a binding
            for each service.
        body: the full name of the message that a JSON body holds, None if there is no body.
        repeated: the fields that a query may name more than once, in the contract's spelling.
        secrets: the fields that a query must not name, because proxies and browsers log URLs.
        is_public: whether it may be called without a token.
        is_stream: whether it is a server stream.
    """

    service: str
    method: str
    verb: str
    path: str
    body: str | None
    repeated: tuple[str, ...]
    secrets: tuple[str, ...]
    is_public: bool
    is_stream: bool

    @property
    def rpc(self) -> str:
        """The path of the method over gRPC."""
        return f"/{self.service}/{self.method}"

    @property
    def variables(self) -> list[str]:
        """The fields that the path names."""
        return re.findall(r"\{([^}]+)\}", self.path)

    @property
    def prefix(self) -> str:
        """The beginning of the path, up to the collection: `/api/v1/users`, whatever follows it."""
        literal = re.split(r"[:{]", self.path)[0].rstrip("/")
        return "/".join(literal.split("/")[:4])

    @property
    def path_regex(self) -> str:
        """A regular expression that matches the whole path of the template.

        A variable matches one segment without a colon, so that `{id}` does not match `{id}:verb` too.
        """
        literals = re.split(r"\{[^}]+\}", self.path)
        return "[^/:]+".join(re.escape(text) for text in literals)

    @property
    def is_public_write(self) -> bool:
        """Whether it is public and not a GET: a caller without a token can change data by it, or try a password."""
        return self.is_public and self.verb != "GET"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message that a body can hold.

    Attributes:
        name: in the contract's spelling.
        holds: the message type of its values; None for scalars and for free fields.
        is_free: whether its values may have any names: maps, and the well-known types with a JSON form of their own.
        is_list: whether it has a list of values.
    """

    name: str
    holds: str | None
    is_free: bool
    is_list: bool


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
        self._methods = {name: list(service.method) for name, service in own}
        self._deprecations = {
            f"/{file.package}.{service.name}/{method.name}": deprecation
            for file in files
            if file.package.startswith(OWN_PACKAGES)
            for service in file.service
            for method in service.method
            if (deprecation := deprecation_of(method.options, service.options, file.options))
        }
        self._messages = {
            name: message
            for file in files
            for root in file.message_type
            for name, message in _messages(root, scope=file.package)
        }
        self.bindings = [
            binding for name, service in own for method in service.method for binding in self._bindings(method, of=name)
        ]

    def methods(self, service: str) -> list[str]:
        """Return the names of the service's unary methods."""
        return sorted(method.name for method in self._methods[service] if not method.server_streaming)

    def reads(self, service: str) -> list[str]:
        """Return the names of the service's unary methods that are bound to GET, and so change nothing."""
        gets = {b.method for b in self.bindings if b.service == service and b.verb == "GET"}
        return [name for name in self.methods(service) if name in gets]

    def lists(self, service: str) -> list[str]:
        """Return the names of the service's unary methods that answer with pages (AIP-158)."""
        paged = self._with_field("page_size", service)
        return [name for name in self.methods(service) if name in paged]

    def streams(self, service: str) -> list[str]:
        """Return the names of the service's server streams."""
        return sorted(method.name for method in self._methods[service] if method.server_streaming)

    def is_public(self, rpc: str) -> bool:
        """Return whether the contract lets the method of this gRPC path be called without a token."""
        return any(binding.is_public for binding in self.bindings if binding.rpc == rpc)

    def is_public_write(self, rpc: str) -> bool:
        """Return whether the method of this gRPC path is public and not a GET."""
        return any(binding.is_public_write for binding in self.bindings if binding.rpc == rpc)

    def deprecation(self, rpc: str) -> Deprecation | None:
        """Return what the contract says about the end of the method of this gRPC path; None if it is not deprecated."""
        return self._deprecations.get(rpc)

    def preconditions(self, service: str) -> list[str]:
        """Return the names of the service's methods whose request has a field `etag`."""
        return self._with_field("etag", service)

    def verbs(self) -> list[str]:
        """Return the HTTP methods in use."""
        return sorted({binding.verb for binding in self.bindings})

    def creations(self, service: str) -> list[str]:
        """Return the names of the service's methods that create a resource (AIP-133), which REST answers with 201."""
        return sorted(
            {
                b.method
                for b in self.bindings
                if b.service == service and b.verb == "POST" and b.method.startswith("Create")
            }
        )

    def body_limit(self, service: str, method: str) -> int:
        """Return the maximum size in bytes of a request of the method, over REST and over gRPC.

        One limit serves both, because a protobuf message is smaller than the longest JSON of the same content.
        """
        return body_limit(self._request(service, method), self._messages)

    def largest_body(self, service: str, method: str) -> int:
        """Return the size in bytes of the longest usual JSON of a valid request of the method.

        Raises:
            Unbounded: no rule bounds one of its fields; the exception names it.
        """
        return largest_json(self._request(service, method), self._messages)

    def fields(self) -> Mapping[str, Mapping[str, Field]]:
        """Return the fields of every message that a body can hold, by both names that JSON allows."""
        found: dict[str, dict[str, Field]] = {}
        wanted = {binding.body for binding in self.bindings if binding.body}
        while wanted:
            name = wanted.pop()
            fields = [
                (each, Field(each.name, self._message_of(each), is_free=self._is_free(each), is_list=_is_list(each)))
                for each in self._messages[name].field
            ]
            found[name] = {spelling: field for each, field in fields for spelling in (each.name, each.json_name)}
            wanted |= {field.holds for _, field in fields if field.holds} - found.keys()
        return dict(sorted(found.items()))

    def _with_field(self, field: str, service: str) -> list[str]:
        """Return the names of the service's methods whose request has the field."""
        return sorted(
            method.name
            for method in self._methods[service]
            if any(each.name == field for each in self._messages[method.input_type.removeprefix(".")].field)
        )

    def _request(self, service: str, method: str) -> str:
        (name,) = (each.input_type for each in self._methods[service] if each.name == method)
        return name.removeprefix(".")

    def _bindings(self, method: MethodDescriptorProto, *, of: str) -> Iterator[Binding]:
        rule = method.options.Extensions[http]
        request = method.input_type.removeprefix(".")
        fields = self._messages[request].field
        for each in (rule, *rule.additional_bindings):
            verb = each.WhichOneof("pattern")
            if verb is None:
                continue
            binding = Binding(
                service=of,
                method=method.name,
                verb=verb.upper(),
                path=getattr(each, verb),
                body=_body(each, request=request),
                repeated=tuple(each.name for each in fields if _is_list(each)),
                secrets=tuple(each.name for each in fields if each.options.debug_redact),
                is_public=method.options.Extensions[access].public,
                is_stream=method.server_streaming,
            )
            if "*" in binding.path:
                yield from (replace(binding, path=binding.path.replace("*", each.path_name)) for each in services())
            else:
                yield binding

    def _message_of(self, field: FieldDescriptorProto) -> str | None:
        is_message = field.type == FieldDescriptorProto.TYPE_MESSAGE
        return field.type_name.removeprefix(".") if is_message and not self._is_free(field) else None

    def _is_free(self, field: FieldDescriptorProto) -> bool:
        name = field.type_name.removeprefix(".")
        is_map = name in self._messages and self._messages[name].options.map_entry
        return field.type == FieldDescriptorProto.TYPE_MESSAGE and (is_map or name.startswith("google.protobuf."))


def _is_list(field: FieldDescriptorProto) -> bool:
    return field.label == FieldDescriptorProto.LABEL_REPEATED


def _body(rule: HttpRule, *, request: str) -> str | None:
    if rule.body in {"", "*"}:
        return request if rule.body else None
    raise ValueError(f"a body can only be the whole message, not its field {rule.body}")


def _messages(message: DescriptorProto, *, scope: str) -> Iterator[tuple[str, DescriptorProto]]:
    name = f"{scope}.{message.name}"
    yield name, message
    for nested in message.nested_type:
        yield from _messages(nested, scope=name)
