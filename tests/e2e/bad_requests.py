"""Requests over REST that must be refused cleanly: with a 4xx of one shape that reveals nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.e2e.callers import Outcome, require_clean_error

if TYPE_CHECKING:
    from tests.e2e.callers import Edge

JSON: Final = {"content-type": "application/json"}
MALFORMED: Final = ("shop.system.v1", "MALFORMED_REQUEST")
INVALID: Final = ("shop.system.v1", "INVALID_FIELDS")


def post_raw(edge: Edge, path: str, body: bytes, **headers: str) -> Outcome:
    return require_clean_error(edge.http.post(path, content=body, headers={**JSON, **headers}))


def post(edge: Edge, path: str, body: object) -> Outcome:
    return require_clean_error(edge.http.post(path, json=body))


def get(edge: Edge, path: str) -> Outcome:
    return require_clean_error(edge.http.get(path))
