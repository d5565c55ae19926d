"""Requests to create, read, change, delete or list resources, made of the contract's examples.

Of any service whose methods are the standard ones (https://google.aip.dev/130), without a word about it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from buf.validate import validate_pb2
from google.protobuf import json_format

from protos.codegen.examples import example_of

if TYPE_CHECKING:
    from google.protobuf.message import Message


def verb_and_resource(method: str) -> tuple[str, str]:
    """Return the parts of the name of a standard method; empty for others."""
    found = re.fullmatch(r"(Create|Get|Update|Delete|List)(\w+)", method)
    return (found[1], found[2]) if found else ("", "")


def example_request(kind: type[Message]) -> Message:
    """Return a request of the examples of its fields, without ids of other resources and of requests."""
    return json_format.ParseDict(dict(example_of(kind.DESCRIPTOR, is_request=True)), kind())


def make_unique(request: Message, number: int) -> None:
    """Give the request other content than those with other numbers: in its first free text, and in a text as `id`."""
    for field, value in request.ListFields():
        rules = field.GetOptions().Extensions[validate_pb2.field].string
        if field.name == "id" and re.fullmatch(rules.pattern, f"{value}-{number}"):
            setattr(request, field.name, f"{value}-{number}")
    for field, value in request.ListFields():
        rules = field.GetOptions().Extensions[validate_pb2.field].string
        if isinstance(value, str) and not (rules.WhichOneof("well_known") or rules.pattern):
            setattr(request, field.name, f"{value} {number}")
            return
