"""The quick check of each request of the contract against protovalidate, which decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import protovalidate
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from chassis.server.contract import service_names
from chassis.server.quick_check import quick_check_of
from tests.support.near_bounds import messages_of, requests_of
from tests.unit.protos.test_contract_bounds import ACCEPTED, REFUSED

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

validator = protovalidate.Validator()
POOL = descriptor_pool.Default()
FILES = sorted({POOL.FindServiceByName(name).file.name for name in service_names() if "shop.system." not in name})
REQUESTS = [each for name in FILES for each in requests_of(POOL.FindFileByName(name))]
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

    assert {name for name, passes in empty.items() if passes} >= {"ListUsersRequest"}
    assert {type(message).__name__ for message in ACCEPTED if CHECKS[message.DESCRIPTOR](message)} == {
        type(message).__name__ for message in ACCEPTED
    }
