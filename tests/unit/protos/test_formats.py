"""Formats that replicas of two releases exchange through callers: a rollout must not make them unreadable."""

from __future__ import annotations

from uuid import UUID

from chassis.server.pagination import PageRequest, PageTokens
from tests.support.builders import NOON, SOME_ID

TOKENS = PageTokens(("ListOrders", "", "PENDING"), NOON)
TOKEN = "AQAAAABppCpAAZYAAAAAcACAAAAAAAAAATH14C8N41ar"


def test_a_page_token_is_made_as_the_release_before_reads_it() -> None:
    assert TOKENS.after(UUID(SOME_ID)) == TOKEN


def test_a_page_token_of_the_release_before_is_read() -> None:
    assert TOKENS.page(page_size=7, page_token=TOKEN) == PageRequest(size=7, after=UUID(SOME_ID))
