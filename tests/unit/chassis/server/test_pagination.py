from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import pytest
from google.cloud.location.locations_pb2 import ListLocationsRequest
from google.longrunning.operations_proto_pb2 import ListOperationsRequest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidPageToken
from chassis.server.pagination import ListRequest, Page, PageRequest, PageTokens, messages_of
from tests.support.builders import NOON, SOME_ID
from tests.support.turns import counted_turns

QUERY = ("ListOrders", "", "PENDING")

queries = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4
).map(tuple)
moments = st.datetimes(datetime(1970, 1, 2), datetime(9990, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  UTC is drawn


def tokens(query: tuple[str, ...] = QUERY, *, now: datetime = NOON) -> PageTokens:
    return PageTokens(query, now)


def a_token() -> str:
    return tokens().after(UUID(SOME_ID))


def forged(payload: bytes) -> str:
    """Return a token of QUERY with this payload and the digest that belongs to it."""
    digest = hashlib.blake2b(payload + "\0".join(QUERY).encode(), digest_size=8).digest()
    return base64.urlsafe_b64encode(payload + digest).decode().rstrip("=")


def is_accepted(token: str, *, by: PageTokens) -> bool:
    """Return whether it is. Any exception but InvalidPageToken is a failure."""
    try:
        by.page(page_size=1, page_token=token)
    except InvalidPageToken:
        return False
    return True


@given(queries, moments, st.uuids(), st.timedeltas(timedelta(0), timedelta(days=1, seconds=-1)))
def test_a_token_brings_its_key_back_for_a_day(
    query: tuple[str, ...], now: datetime, last: UUID, age: timedelta
) -> None:
    token = PageTokens(query, now).after(last)

    page = PageTokens(query, now + age).page(page_size=10, page_token=token)

    assert page == PageRequest(size=10, after=last)


@given(st.uuids(), moments)
def test_a_token_fits_the_contracts_field_and_a_url(last: UUID, now: datetime) -> None:
    token = PageTokens(QUERY, now).after(last)

    assert len(token) <= 512
    assert token.replace("-", "").replace("_", "").isalnum()


@given(queries, queries)
def test_a_token_of_another_query_is_refused(mine: tuple[str, ...], other: tuple[str, ...]) -> None:
    token = tokens(mine).after(UUID(SOME_ID))

    assert is_accepted(token, by=tokens(other)) == (mine == other)


@given(st.integers(0, 32), st.integers(1, 255))
def test_a_token_with_one_byte_changed_is_refused(position: int, flip: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(a_token()))

    raw[position] ^= flip

    assert not is_accepted(base64.urlsafe_b64encode(raw).decode().rstrip("="), by=tokens())


def test_a_truncated_or_lengthened_token_is_refused() -> None:
    token = a_token()

    wrong = [token[:length] for length in range(1, len(token))] + [token + "A", token + token]

    assert not any(is_accepted(each, by=tokens()) for each in wrong)


@given(st.text(min_size=1))
def test_garbage_is_refused_as_such(garbage: str) -> None:
    assert not is_accepted(garbage, by=tokens())


@given(st.binary(min_size=1, max_size=64))
def test_well_encoded_garbage_is_refused_as_such(garbage: bytes) -> None:
    assert not is_accepted(base64.urlsafe_b64encode(garbage).decode().rstrip("="), by=tokens())


@pytest.mark.parametrize("stray", ["!", " ", "\n", ".", "é"])
def test_a_token_with_a_stray_character_is_refused(stray: str) -> None:
    token = a_token()

    wrong = [stray + token, token[:20] + stray + token[20:], token + stray]

    assert not any(is_accepted(each, by=tokens()) for each in wrong)


@given(st.binary(max_size=64).filter(lambda payload: len(payload) != 25))
def test_a_forged_token_with_another_payload_is_refused_as_such(payload: bytes) -> None:
    # The digest is not secret, so a caller can compute one that fits.
    assert not is_accepted(forged(payload), by=tokens())


@given(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=16))
def test_a_forged_token_can_name_a_position_and_nothing_else(version: int, issued_at_s: int, last: bytes) -> None:
    token = forged(bytes([version]) + issued_at_s.to_bytes(8, "big") + last)

    is_fresh = issued_at_s >= NOON.timestamp() - 86_400
    assert is_accepted(token, by=tokens()) == (version == 1 and is_fresh)


@pytest.mark.parametrize(("age_s", "expected"), [(0, True), (86_400, True), (86_401, False), (10**9, False)])
def test_a_token_lives_for_a_day(age_s: int, *, expected: bool) -> None:
    later = tokens(now=NOON + timedelta(seconds=age_s))

    assert is_accepted(a_token(), by=later) is expected


@pytest.mark.parametrize(
    ("page_size", "size"), [(0, 50), (1, 1), (50, 50), (199, 199), (200, 200), (201, 200), (2**31 - 1, 200)]
)
def test_a_page_has_a_default_and_a_largest_size(page_size: int, size: int) -> None:
    assert tokens().page(page_size=page_size, page_token="") == PageRequest(size=size, after=None)


@pytest.mark.parametrize(
    ("found", "shown", "has_more"),
    [([], [], False), ([1], [1], False), ([1, 2], [1, 2], False), ([1, 2, 3], [1, 2], True)],
)
def test_one_row_more_than_the_page_says_that_there_is_another(
    found: list[int], shown: list[int], *, has_more: bool
) -> None:
    assert PageRequest(size=2, after=None).split(found) == (shown, has_more)


class Entry(NamedTuple):
    id: UUID
    text: str


def shown(entry: Entry) -> StringValue:
    return StringValue(value=entry.text)


entries = st.lists(st.builds(Entry, st.uuids(), st.text("ab", max_size=40)), min_size=1, max_size=30, unique=True)


@given(entries, st.integers(1, 200), st.booleans())
def test_pages_bounded_by_bytes_give_each_entry_once(
    found: list[Entry],
    max_bytes: int,
    has_more_rows: bool,  # noqa: FBT001  it is drawn
) -> None:
    rows, seen = found, []
    while True:
        messages = asyncio.run(messages_of(rows, shown, max_bytes=max_bytes))
        token = tokens().after_page(rows, shown=len(messages), has_more=has_more_rows)
        seen += [message.value for message in messages]

        size = sum(message.ByteSize() for message in messages)
        assert size <= max_bytes or len(messages) == 1
        if len(messages) == len(rows):
            break
        assert size + shown(rows[len(messages)]).ByteSize() > max_bytes
        last = tokens().page(page_size=1, page_token=token).after
        assert last == rows[len(messages) - 1].id
        rows = rows[len(messages) :]

    assert seen == [entry.text for entry in found]
    assert bool(token) == has_more_rows
    if token:
        assert tokens().page(page_size=1, page_token=token).after == found[-1].id


def test_a_page_without_rows_has_no_messages_and_no_token() -> None:
    assert asyncio.run(messages_of([], shown)) == []
    assert tokens().after_page([], shown=0, has_more=False) == ""


def of_size(size: int) -> Entry:
    """Return an entry whose message has this size in bytes."""
    head = next(head for head in (2, 3, 4) if shown(Entry(UUID(SOME_ID), "a" * (size - head))).ByteSize() == size)
    return Entry(UUID(SOME_ID), "a" * (size - head))


@pytest.mark.parametrize(
    ("number", "size", "expected"), [(64, 1024, 16), (63, 1024, 15), (3, 5_000, 3), (40, 80, 0), (100, 2_000, 33)]
)
async def test_a_page_yields_to_other_calls_after_each_4_kib_and_no_more_often(
    number: int, size: int, expected: int
) -> None:
    async with counted_turns() as turns:
        await messages_of([of_size(size)] * number, shown)

    assert turns.count == expected


# Keys that are texts


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63)


def text_tokens() -> PageTokens:
    return PageTokens(QUERY, NOON, str)


@given(texts)
def test_a_token_brings_a_key_back_that_is_a_text(last: str) -> None:
    token = text_tokens().after(last)

    assert text_tokens().page(page_size=10, page_token=token) == PageRequest(size=10, after=last)
    assert len(token) <= 512


@pytest.mark.parametrize("key", [b"", b"a\0b", b"\xff", b"\xed\xa0\x80"], ids=["none", "NUL", "no UTF-8", "surrogate"])
def test_a_forged_token_cannot_name_what_is_no_text_of_the_database(key: bytes) -> None:
    token = forged(bytes([1]) + int(NOON.timestamp()).to_bytes(8, "big") + key)

    with pytest.raises(InvalidPageToken):
        text_tokens().page(page_size=1, page_token=token)


# A request for a page


A_LIST = ListOperationsRequest(name="shops/1", filter="done", page_size=2)


def token_of(request: ListOperationsRequest) -> str:
    return ListRequest(request, now=NOON).tokens.after(UUID(SOME_ID))


def test_the_next_page_of_a_request_is_asked_for_by_its_token() -> None:
    following = ListOperationsRequest(name="shops/1", filter="done", page_size=7, page_token=token_of(A_LIST))

    assert ListRequest(following, now=NOON).page == PageRequest(size=7, after=UUID(SOME_ID))


@pytest.mark.parametrize(
    "other",
    [
        ListOperationsRequest(name="shops/1"),
        ListOperationsRequest(filter="done"),
        ListOperationsRequest(name="shops/1", filter="failed"),
        ListOperationsRequest(name="done", filter="shops/1"),
    ],
)
def test_a_token_of_a_request_with_other_filters_is_refused(other: ListOperationsRequest) -> None:
    other.page_token = token_of(A_LIST)

    with pytest.raises(InvalidPageToken):
        ListRequest(other, now=NOON)


def test_a_token_of_another_owner_is_refused() -> None:
    owners = (None, UUID(SOME_ID), UUID(int=1))
    tokens = [ListRequest(A_LIST, now=NOON, owner=owner).tokens.after(UUID(SOME_ID)) for owner in owners]

    assert len(set(tokens)) == len(tokens)
    with pytest.raises(InvalidPageToken):
        ListRequest(ListOperationsRequest(name="shops/1", filter="done", page_token=tokens[1]), now=NOON)


def test_the_same_content_of_another_list_is_another_query() -> None:
    operations, locations = ListOperationsRequest(filter="same"), ListLocationsRequest(name="same")
    assert operations.SerializeToString() == locations.SerializeToString()
    locations.page_token = token_of(operations)

    with pytest.raises(InvalidPageToken):
        ListRequest(locations, now=NOON)


@pytest.mark.parametrize("has_more", [False, True])
async def test_an_answer_has_the_messages_and_the_token_of_the_next_page(*, has_more: bool) -> None:
    rows = [Entry(UUID(int=n), str(n)) for n in (3, 2, 1)]
    listing = ListRequest(A_LIST, now=NOON)

    messages, token = await listing.answer(Page(rows, has_more), shown)

    assert [message.value for message in messages] == ["3", "2", "1"]
    assert token == (listing.tokens.after(UUID(int=1)) if has_more else "")
