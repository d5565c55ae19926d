from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidFields
from chassis.server.if_match import take_if_match
from tests.support.builders import SOME_ID
from tests.support.notes_svc import notes_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message


@given(st.text(min_size=1))
def test_an_if_match_header_is_one_etag_or_refused(header: str) -> None:
    request = pb.UpdateNoteRequest(id=SOME_ID)

    with contextlib.suppress(InvalidFields):
        take_if_match(request, header)
        assert header.strip() == "*" or request.etag
    assert not request.etag or request.etag in header


@pytest.mark.parametrize(
    ("header", "etag"),
    [
        ('"v3"', "v3"),
        ("v3", "v3"),
        (' "v3" ', "v3"),
        ('W/"v2", "v3"', "v3"),
        ('"v3", "v3"', "v3"),
        ("*", ""),
    ],
)
@pytest.mark.parametrize("stated", ["", "v3"])
def test_an_if_match_header_stands_for_the_etag(header: str, etag: str, stated: str) -> None:
    request = pb.UpdateNoteRequest(id=SOME_ID, etag=stated)

    take_if_match(request, header)

    assert request.etag == (etag or stated)


@pytest.mark.parametrize(
    ("message", "header", "rule"),
    [
        (pb.GetNoteRequest(id=SOME_ID), '"v3"', "if_match.unsupported"),
        (pb.UpdateNoteRequest(id=SOME_ID), 'W/"v3"', "if_match.weak"),
        (pb.UpdateNoteRequest(id=SOME_ID), '"v3", "v4"', "if_match.one"),
        (pb.UpdateNoteRequest(id=SOME_ID), '"v 3"', "if_match.one"),
        (pb.UpdateNoteRequest(id=SOME_ID, etag="v4"), '"v3"', "if_match.conflict"),
    ],
)
def test_an_if_match_header_that_cannot_be_kept_is_refused_and_says_why(
    message: Message, header: str, rule: str
) -> None:
    with pytest.raises(InvalidFields) as refused:
        take_if_match(message, header)

    assert [(each.field, each.rule) for each in refused.value.violations] == [("if-match", rule)]
    assert getattr(message, "etag", "") in {"", "v4"}
