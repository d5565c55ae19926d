"""A change that locks its resources, applies each command to its resource, and writes the outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from chassis.errors import DomainError, EtagMismatch, NotFound
from chassis.idempotency.key import IdempotencyKey
from chassis.idempotency.transactions import LockedChange, Request
from tests.support.builders import NOON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

CONNECTION: Final = cast("Connection", object())


class Missing(NotFound):
    """There is no such number."""

    reason = "MISSING"
    domain = "tests"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no number {name}.")


def request(command: str) -> Request[str]:
    return Request(command, IdempotencyKey.absent(received_at=NOON), f"trace of {command}")


class Numbers:
    """The numbers of some names, of which `locked` are locked by others."""

    def __init__(self, **numbers: int) -> None:
        self.numbers = numbers
        self.locked: set[str] = set()
        self.written: list[tuple[str, int]] = []
        self.change: Final = LockedChange(lock=self.lock, apply=self.apply, write=self.write)

    def lock(self, connection: Connection, commands: Sequence[str], *, wait: bool) -> list[int | None]:
        assert connection is CONNECTION
        return [None if each in self.locked and not wait else self.numbers.get(each) for each in commands]

    def apply(self, command: str, number: int | None) -> int:
        if number is None:
            raise Missing(command)
        if number < 0:
            raise EtagMismatch(current="v1")
        return number + 1

    def write(self, connection: Connection, outcomes: Sequence[tuple[Request[str], int]]) -> None:
        assert connection is CONNECTION
        self.written += [(each.traceparent, number) for each, number in outcomes]

    def run(self, *commands: str, wait: bool = False) -> list[Any]:
        outcomes = self.change(CONNECTION, [request(each) for each in commands], wait=wait)
        return [type(each) if isinstance(each, DomainError) else each for each in outcomes]


def test_each_command_is_applied_to_its_own_resource() -> None:
    numbers = Numbers(one=1, two=2, three=3)

    assert numbers.run("three", "one") == [4, 2]
    assert numbers.written == [("trace of three", 4), ("trace of one", 2)]


def test_a_refused_command_is_answered_in_its_place_and_not_written() -> None:
    numbers = Numbers(one=1, bad=-1, two=2)

    assert numbers.run("one", "bad", "unknown", "two") == [2, EtagMismatch, Missing, 3]
    assert numbers.written == [("trace of one", 2), ("trace of two", 3)]


def test_a_locked_resource_counts_as_missing_unless_it_is_waited_for() -> None:
    numbers = Numbers(one=1)
    numbers.locked = {"one"}

    assert numbers.run("one") == [Missing]
    assert numbers.run("one", wait=True) == [2]
