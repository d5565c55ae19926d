"""Finds the deprecated fields and values in requests: before they can be removed, operators must know their senders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.descriptor import FieldDescriptor as Field
    from google.protobuf.message import Message

    DeprecatedFields = Callable[[Message], list[str]]


@dataclass(frozen=True, slots=True)
class _Part:
    """A field that is deprecated, or whose values can be or hold something deprecated.

    Attributes:
        name: its full name, if it is deprecated; else empty.
        values: the full names of the deprecated values of its enum, by number.
        inner: such fields of its message, by name.
        is_list: whether it has several values.
    """

    name: str
    values: Mapping[int, str]
    inner: Mapping[str, _Part]
    is_list: bool


def deprecated_fields_of(message: Descriptor) -> DeprecatedFields | None:
    """Return a function that finds the deprecated fields and values in messages of this type; None if it has none.

    The function returns their full names, each once, sorted. A field counts if it is present, or without presence if it
    is not zero or empty.
    """
    parts = _parts_of(message, parents=())
    return (lambda request: sorted(set(_sent(request, parts)))) if parts else None


def _parts_of(message: Descriptor, *, parents: tuple[Descriptor, ...]) -> Mapping[str, _Part]:
    parts = ((field.name, _part_of(field, parents=(*parents, message))) for field in message.fields)
    return {name: part for name, part in parts if part.name or part.values or part.inner}


def _part_of(field: Field, *, parents: tuple[Descriptor, ...]) -> _Part:
    kind = field.message_type
    # A type that contains itself is looked at once, and not below itself. Keys and values of maps cannot be marked.
    has_fields = kind is not None and kind not in parents and not kind.GetOptions().map_entry
    return _Part(
        name=field.full_name if field.GetOptions().deprecated else "",
        values=_values_of(field.enum_type) if field.enum_type else {},
        inner=_parts_of(kind, parents=parents) if has_fields and kind is not None else {},
        is_list=field.is_repeated,
    )


def _values_of(enum: EnumDescriptor) -> Mapping[int, str]:
    return {each.number: f"{enum.full_name}.{each.name}" for each in enum.values if each.GetOptions().deprecated}


def _sent(message: Message, parts: Mapping[str, _Part]) -> Iterator[str]:
    for field, content in message.ListFields():
        part = parts.get(field.name)
        if part is None:
            continue
        if part.name:
            yield part.name
        if part.values or part.inner:
            for each in content if part.is_list else (content,):
                if part.inner:
                    yield from _sent(each, part.inner)
                elif each in part.values:
                    yield part.values[each]
