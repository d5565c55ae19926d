"""The quick check of requests against protovalidate, which decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import protovalidate
import pytest
from buf.validate import validate_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.server.quick_check import quick_check_of
from tests.support.near_bounds import messages_of, requests_of
from tests.support.notes_svc import notes_pb2 as pb
from tests.unit.chassis.server.test_validation import ACCEPTED, REFUSED

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

validator = protovalidate.Validator()


REQUESTS = requests_of(pb.DESCRIPTOR)
CHECKS = {each: quick_check_of(each) for each in REQUESTS}


@pytest.mark.parametrize("request_", ACCEPTED, ids=lambda message: type(message).__name__)
def test_valid_requests_are_recognised(request_: Message) -> None:
    assert CHECKS[request_.DESCRIPTOR](request_)


@pytest.mark.parametrize(("request_", "_field", "rule"), REFUSED)
def test_no_refused_request_passes(request_: Message, _field: str, rule: str) -> None:
    assert not CHECKS[request_.DESCRIPTOR](request_), rule


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.name)
@settings(max_examples=40)  # of each of the types
@given(data=st.data())
def test_what_passes_keeps_every_rule(kind: Descriptor, data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))

    if CHECKS[kind](message):
        assert validator.collect_violations(message) == []


def test_each_rule_of_the_contract_is_known() -> None:
    # Of a type with an unknown rule no message would pass, and each would cost four times as much.
    empty = {kind.name: CHECKS[kind](message) for kind in REQUESTS for message in [GetMessageClass(kind)()]}

    assert {name for name, passes in empty.items() if passes} >= {"ListNotesRequest", "FindNotesRequest"}
    assert {type(message).__name__ for message in ACCEPTED if CHECKS[message.DESCRIPTOR](message)} == {
        type(message).__name__ for message in ACCEPTED
    }


def a_type_with(
    rules: validate_pb2.FieldRules, *, whole: validate_pb2.MessageRules | None = None, has_map: bool = False
) -> Descriptor:
    """Return a message type with one text, `value`, that has these rules, and with rules for the whole message."""
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    message = file.message_type.add(name="A")
    text = message.field.add(name="value", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    text.options.Extensions[validate_pb2.field].CopyFrom(rules)
    if has_map:
        entry = message.nested_type.add(name="TagsEntry")
        entry.options.map_entry = True
        for number, name in enumerate(("key", "value"), 1):
            entry.field.add(name=name, number=number, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
        tags = message.field.add(name="tags", number=2, type=Field.TYPE_MESSAGE, label=Field.LABEL_REPEATED)
        tags.type_name = ".a.A.TagsEntry"
    if whole is not None:
        message.options.Extensions[validate_pb2.message].CopyFrom(whole)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    for needed in ("duration", "timestamp", "field_mask"):
        known = descriptor_pool.Default().FindFileByName(f"google/protobuf/{needed}.proto")
        pool.AddSerializedFile(known.serialized_pb)
    pool.AddSerializedFile(validate_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool.FindMessageTypeByName("a.A")


@pytest.mark.parametrize(
    "rules",
    [
        validate_pb2.FieldRules(string=validate_pb2.StringRules(email=True)),
        validate_pb2.FieldRules(string=validate_pb2.StringRules(pattern="^a$")),
        validate_pb2.FieldRules(cel=[validate_pb2.Rule(id="a", expression="this == 'a'")]),
        validate_pb2.FieldRules(cel_expression=["this == 'a'"]),
    ],
    ids=["email", "pattern", "expression", "short expression"],
)
def test_nothing_passes_if_a_rule_is_unknown(rules: validate_pb2.FieldRules) -> None:
    kind = a_type_with(rules)

    assert not quick_check_of(kind)(GetMessageClass(kind)(value="a"))


def test_nothing_passes_if_the_message_itself_has_a_rule() -> None:
    whole = validate_pb2.MessageRules(cel=[validate_pb2.Rule(id="a", expression="this.value == 'a'")])
    kind = a_type_with(validate_pb2.FieldRules(), whole=whole)

    assert not quick_check_of(kind)(GetMessageClass(kind)(value="a"))


def test_nothing_passes_if_there_is_a_map() -> None:
    kind = a_type_with(validate_pb2.FieldRules(), has_map=True)

    assert not quick_check_of(kind)(GetMessageClass(kind)(value="a", tags={"b": "c"}))


def test_a_type_with_nothing_but_known_rules_passes() -> None:
    kind = a_type_with(validate_pb2.FieldRules(string=validate_pb2.StringRules(min_len=1)))

    assert quick_check_of(kind)(GetMessageClass(kind)(value="a"))
    assert not quick_check_of(kind)(GetMessageClass(kind)())
