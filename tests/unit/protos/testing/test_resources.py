"""What the services in memory do alike. The conformance suite compares the whole with the services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from chassis.errors import AlreadyExists, NotFound, RequestIdReused
from chassis.idempotency.key import IdempotencyKey
from chassis.server.pagination import PageRequest
from protos.testing.resources import Resources
from tests.support.builders import ALL, NOON, OURS

if TYPE_CHECKING:
    from uuid import UUID

NO_KEY = IdempotencyKey.absent(received_at=NOON)
A_KEY = IdempotencyKey("ada", "/method", OURS, b"content", NOON)
OTHER_CONTENT = IdempotencyKey("ada", "/method", OURS, b"other content", NOON)


@dataclass(frozen=True)
class Thing:
    id: UUID | str
    name: str = ""


def things(*ids: UUID | str) -> Resources[Thing]:
    made: Resources[Thing] = Resources(NotFound, taken=AlreadyExists)
    for thing_id in ids:
        made.create(Thing(thing_id), key=NO_KEY)
    return made


def test_the_key_of_another_resource_is_taken() -> None:
    made = things("tea")

    with pytest.raises(AlreadyExists, match="tea"):
        made.create(Thing("tea"), key=NO_KEY)


def test_a_repetition_gets_the_first_answer_and_other_content_is_refused() -> None:
    made = things()
    first = made.create(Thing("tea", "first"), key=A_KEY)
    made.change("tea", lambda thing: Thing(thing.id, "changed"), key=NO_KEY)

    assert made.create(Thing("tea", "first"), key=A_KEY) == first
    with pytest.raises(RequestIdReused):
        made.create(Thing("cup"), key=OTHER_CONTENT)
    assert [thing.name for thing in made] == ["changed"]


def test_a_refused_change_leaves_the_resource_and_the_key() -> None:
    made = things("tea")

    def refuse(_thing: Thing) -> Thing:
        raise AlreadyExists("no")

    with pytest.raises(AlreadyExists, match="no"):
        made.change("tea", refuse, key=A_KEY)
    assert made.change("tea", lambda thing: Thing(thing.id, "changed"), key=A_KEY).name == "changed"


def test_a_resource_that_a_caller_may_not_see_is_not_there() -> None:
    made = things("tea")

    with pytest.raises(NotFound, match="tea"):
        made.get("tea", where=lambda _thing: False)
    with pytest.raises(NotFound, match="tea"):
        made.change("tea", lambda thing: thing, key=NO_KEY, where=lambda _thing: False)


def test_pages_follow_the_order_of_their_list() -> None:
    texts, ids = things("b", "a", "c"), things(*ALL)

    first, more = texts.in_order(PageRequest(2, None))
    last, no_more = texts.in_order(PageRequest(2, "b"))
    assert ([thing.id for thing in first], more) == (["a", "b"], True)
    assert ([thing.id for thing in last], no_more) == (["c"], False)

    newest, more = ids.newest_first(PageRequest(2, None))
    oldest, no_more = ids.newest_first(PageRequest(2, ALL[1]))
    assert ([thing.id for thing in newest], more) == ([ALL[2], ALL[1]], True)
    assert ([thing.id for thing in oldest], no_more) == ([ALL[0]], False)
    filtered, _ = ids.newest_first(PageRequest(2, None), where=lambda thing: thing.id == ALL[0])
    assert [thing.id for thing in filtered] == [ALL[0]]
