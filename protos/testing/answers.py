"""The answers to writes, by their idempotency keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from chassis.errors import AnswerErased, RequestIdReused
from chassis.idempotency.key import LIFETIME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from uuid import UUID

    from chassis.idempotency.key import IdempotencyKey, KeyTuple

T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    fingerprint: bytes
    resource_id: UUID | str
    answer: T | None
    created_at: datetime


class Answers(Generic[T]):
    """The kept answers of one service.

    Args:
        resource_id: returns the resource that an answer shows.
    """

    def __init__(self, resource_id: Callable[[T], UUID | str]) -> None:
        self._resource_id = resource_id
        self._kept: dict[KeyTuple, _Kept[T]] = {}

    def find(self, key: IdempotencyKey) -> T | None:
        """Return the answer to an earlier request with this key, or None.

        Raises:
            AnswerErased: its answer was erased.
            RequestIdReused: the key was used with other content.
        """
        kept = self._kept.get(key.identity) if key.identity else None
        if kept is None or kept.created_at < key.received_at - LIFETIME:
            return None
        if kept.answer is None:
            raise AnswerErased(str(key.request_id))
        if kept.fingerprint != key.fingerprint:
            raise RequestIdReused(str(key.request_id))
        return kept.answer

    def keep(self, key: IdempotencyKey, answer: T) -> T:
        """Keep the answer, if the request has a key, and return it."""
        if key.identity:
            self._kept[key.identity] = _Kept(key.fingerprint, self._resource_id(answer), answer, key.received_at)
        return answer

    def erase(self, resource_ids: Collection[UUID]) -> None:
        """Erase every answer about these resources. The keys stay used."""
        for kept in self._kept.values():
            if kept.resource_id in resource_ids:
                kept.answer, kept.fingerprint = None, b""
