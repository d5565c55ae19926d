"""The contract as the generators of documents read it: its rpcs, its enums, and the comment of each element."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.api.annotations_pb2 import http  # its stubs break those of gRPC
from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from chassis.service import services
from protos.codegen.deprecation import deprecations
from protos.codegen.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from google.protobuf.descriptor import (
        Descriptor,
        EnumDescriptor,
        FieldDescriptor,
        MethodDescriptor,
        ServiceDescriptor,
    )
    from google.protobuf.message import Message

    from protos.deprecation import Deprecation

OWN_PACKAGES: Final = "shop."
"""The prefix of the contract's own packages; others are imported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call an rpc over REST.

    Attributes:
        verb: the HTTP method in lower case.
        path: the path's template, as `/api/v1/users/{id}:changePassword`.
        has_body: whether the fields that are not in the path come as a JSON body, and not as a query.
    """

    verb: str
    path: str
    has_body: bool

    @property
    def path_fields(self) -> list[str]:
        """The fields of the request that stand in the path."""
        return re.findall(r"\{([a-z0-9_]+)\}", self.path)

    @property
    def json_path(self) -> str:
        """The path with its fields as JSON spells them, as the parameters of an OpenAPI document are named."""
        return json_path(self.path)


class BadBody(Refusal):
    """The body of an rpc over REST is a part of its message."""


class Contract:
    """The contract's own services, read from a descriptor set with source info."""

    def __init__(self, descriptor_set: bytes) -> None:
        """Read the descriptor set.

        Raises:
            ValueError: it holds no comments; they are half of what there is to say.
            BadDeprecation: something is deprecated in another way than the policy says.
        """
        files = FileDescriptorSet.FromString(descriptor_set).file
        self._pool: Final = DescriptorPool()
        for file in files:
            self._pool.AddSerializedFile(file.SerializeToString())
        own = [file for file in files if file.package.startswith(OWN_PACKAGES)]
        self._names: Final = [file.name for file in own]
        self._deprecations: Final = deprecations(own)
        self._comments: Final = {name: text for file in files for name, text in _comments(file)}
        if not any(name.startswith(OWN_PACKAGES) for name in self._comments):
            raise ValueError("the descriptor set has no comments: build it with source info")

    @property
    def services(self) -> list[ServiceDescriptor]:
        """Every service of the contract."""
        files = map(self._pool.FindFileByName, self._names)
        return [service for file in files for service in file.services_by_name.values()]

    def enums_named(self, name: str) -> list[EnumDescriptor]:
        """Return the enums of this name, at most one a package."""
        files = map(self._pool.FindFileByName, self._names)
        return [file.enum_types_by_name[name] for file in files if name in file.enum_types_by_name]

    def messages_of(self, package: str) -> list[Descriptor]:
        """Return the messages of a package, by file and in the order of each."""
        files = [self._pool.FindFileByName(name) for name in self._names]
        found = [
            message for file in files if file.package == package for message in file.message_types_by_name.values()
        ]
        return sorted(found, key=lambda message: message.file.name, reverse=True)

    def comment(self, full_name: str) -> str:
        """Return the comment above the element, with the fields that it quotes as JSON spells them.

        A value of an enum is named as `shop.user.v1.Role.ROLE_USER`.
        """
        return _with_json_names(self._comments.get(full_name, ""))

    def deprecation(self, full_name: str) -> Deprecation | None:
        """Return what the contract says about the end of the element, or None if it is not deprecated."""
        return self._deprecations.get(full_name)

    def notice(self, full_name: str, *, after: str) -> str:
        """Return the sentences that say that the element is deprecated, after a separator; empty if it is not."""
        deprecation = self.deprecation(full_name)
        return f"{after}{_with_json_names(deprecation.in_words())}" if deprecation else ""


def bindings(method: MethodDescriptor) -> list[Binding]:
    """Return the rpc's REST bindings, the main one first. `*` in a path stands for what each service keeps.

    Raises:
        BadBody: one has a body that is not the whole message.
    """
    rule = method.GetOptions().Extensions[http]
    found = []
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb is None:
            continue
        if each.body not in {"", "*"}:
            raise BadBody(f"{method.full_name}: a body can only be the whole message, not its field {each.body}")
        path = getattr(each, verb)
        paths = [path.replace("*", service.path_name) for service in services()] if "*" in path else [path]
        found += [Binding(verb=verb, path=path, has_body=each.body == "*") for path in paths]
    return found


def json_path(path: str) -> str:
    """Return a path's template with its fields as JSON spells them: `/api/v1/cards/{cardId}`."""
    return re.sub(r"\{([a-z0-9_]+)\}", lambda field: f"{{{json_name(field[1])}}}", path)


def behaves(field: FieldDescriptor, *, as_any_of: Sequence[str]) -> bool:
    """Return whether the field is marked with one of these values of google.api.FieldBehavior."""
    marks = field.GetOptions().Extensions[field_behavior]
    return any(FieldBehavior.Name(mark) in as_any_of for mark in marks)


def fields_of(message: Descriptor, *, without: Sequence[str]) -> list[FieldDescriptor]:
    """Return the message's fields in the order of the file, without those named."""
    return [field for field in message.fields if field.name not in without]


def entry_of(field: FieldDescriptor) -> Descriptor | None:
    """Return the message with a key and a value of which descriptors have a list for a map; None for another field."""
    return field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        name = _full_name(file, path=location.path)
        if name and location.leading_comments:
            yield name, re.sub(r"(?m)^ ", "", location.leading_comments).strip()


def _full_name(file: FileDescriptorProto, *, path: Sequence[int]) -> str | None:
    """Return the name of the element at a path of source info; None for what has none, as options."""
    element: Message = file
    names = [file.package]
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = element.DESCRIPTOR.fields_by_number[number]
        if len(path) % 2 or not field.is_repeated or field.message_type is None:
            return None
        element = getattr(element, field.name)[index]
        names.append(getattr(element, "name", ""))
    return ".".join(names) if path else None


def _with_json_names(text: str) -> str:
    """Return the text with `snake_case` in backquotes as `snakeCase`."""
    return re.sub(r"`[a-z]+(?:_[a-z]+)+`", lambda match: json_name(match[0]), text)


def json_name(field: str) -> str:
    """Return a name of a field as JSON has it: `display_name` becomes `displayName`."""
    return re.sub(r"_([a-z0-9])", lambda letter: letter[1].upper(), field)
