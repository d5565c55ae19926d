"""Messages near the bounds of their rules, on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.support.builders import SOME_ID

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from google.protobuf.message import Message

texts = st.one_of(
    st.sampled_from(
        ["", SOME_ID, SOME_ID.upper(), SOME_ID + "\n", "EUR", "EUR\n", "eur", " ", "\u2800", "a\0", "é", "\u200b"]
    ),
    st.integers(0, 520).map("n".__mul__),
    st.text(max_size=8),
)
numbers = st.sampled_from([-(2**31), -1, 0, 1, 2, 10_000, 10_001, 999_999_999, 1_000_000_000, 2**31 - 1])


def requests_of(file: FileDescriptor) -> list[Descriptor]:
    return [each for name, each in file.message_types_by_name.items() if name.endswith("Request")]


def values_of(field: Field) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages_of(field.message_type)
    return {Field.TYPE_STRING: texts, Field.TYPE_ENUM: st.integers(-1, 8)}.get(field.type, numbers)


def messages_of(kind: Descriptor) -> st.SearchStrategy[Message]:
    make = GetMessageClass(kind)
    if kind.full_name.startswith("google.protobuf."):
        return st.builds(make)
    few = {f.name: st.lists(values_of(f), max_size=2) if f.is_repeated else values_of(f) for f in kind.fields}
    return st.fixed_dictionaries({}, optional=few).map(lambda fields: make(**fields))
