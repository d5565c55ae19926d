"""The resources of one kind in memory, with what each service does alike: keys, versions, pages, repetitions."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chassis.server.pagination import Row
from protos.testing.answers import Answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from chassis.errors import DomainError
    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import Page, PageRequest

R = TypeVar("R", bound=Row)


def _any(_resource: object) -> bool:
    return True


def _nothing(_resource: object) -> None:
    """Refuse nothing, and write nothing beside the resource."""


class Resources(Generic[R]):
    """The resources of one kind.

    Args:
        not_found: makes the refusal of a key without a resource.
        taken: makes the refusal of a new resource whose key another one has; None if the service makes the keys.

    Attributes:
        answers: to the writes of these resources.
    """

    def __init__(
        self, not_found: Callable[[Any], DomainError], *, taken: Callable[[Any], DomainError] | None = None
    ) -> None:
        self._not_found = not_found
        self._taken = taken
        self._by_key: dict[UUID | str, R] = {}
        self.answers: Answers[R] = Answers(attrgetter("id"))

    def __iter__(self) -> Iterator[R]:
        return iter(list(self._by_key.values()))

    def find(self, resource_id: UUID | str) -> R | None:
        """Return a resource, or None if there is none."""
        return self._by_key.get(resource_id)

    def get(self, resource_id: UUID | str, *, where: Callable[[R], bool] = _any) -> R:
        """Return a resource.

        Args:
            resource_id: of the resource.
            where: a condition of the query, such as the owner's.

        Raises:
            DomainError: there is none.
        """
        found = self._by_key.get(resource_id)
        if found is None or not where(found):
            raise self._not_found(resource_id)
        return found

    def put(self, resource: R) -> R:
        """Write a version of a resource, and return it."""
        self._by_key[resource.id] = resource
        return resource

    def create(
        self,
        resource: R,
        *,
        key: IdempotencyKey,
        check: Callable[[R], None] = _nothing,
        then: Callable[[R], None] = _nothing,
    ) -> R:
        """Write a new resource, and return it; if the key was used before, return the resource that was written then.

        Args:
            resource: the new one.
            key: of the request.
            check: raises the refusal, if there is one; is not called for a repetition.
            then: writes what belongs to a new resource: its history, its event.

        Raises:
            RequestIdReused: the key was used with other content.
            DomainError: another resource has its id; or as `check`.
        """
        if (answered := self.answers.find(key)) is not None:
            return answered
        if self._taken and resource.id in self._by_key:
            raise self._taken(resource.id)
        check(resource)
        then(self.put(resource))
        return self.answers.keep(key, resource)

    def change(
        self,
        resource_id: UUID | str,
        apply: Callable[[R], R],
        *,
        key: IdempotencyKey,
        where: Callable[[R], bool] = _any,
    ) -> R:
        """Change a resource, and return it; if the key was used before, return what was answered then.

        Args:
            resource_id: of the resource.
            apply: makes the next version, or returns the same one; raises the refusal.
            key: of the request.
            where: as of get().

        Raises:
            RequestIdReused: the key was used with other content.
            DomainError: there is no such resource; or as `apply`.
        """
        if (answered := self.answers.find(key)) is not None:
            return answered
        return self.answers.keep(key, self.put(apply(self.get(resource_id, where=where))))

    def newest_first(self, page: PageRequest[Any], *, where: Callable[[R], bool] = _any) -> Page[R]:
        """Return a page of resources, newest first: their keys are UUIDs of version 7."""
        after = page.after
        found = [each for each in self._in_order() if (after is None or each.id < after) and where(each)]
        return page.split(found[::-1])

    def in_order(self, page: PageRequest[Any], *, where: Callable[[R], bool] = _any) -> Page[R]:
        """Return a page of resources, in the order of their keys."""
        after = page.after
        return page.split([each for each in self._in_order() if (after is None or each.id > after) and where(each)])

    def _in_order(self) -> list[R]:
        return sorted(self._by_key.values(), key=attrgetter("id"))
