"""One table of limits, from which the edges and the limiter take theirs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from envoy.files import REPOSITORY
from envoy.limits import Limit, limits, rate_limiter_config

TABLE = limits(rate_limit=100, public_write_limit=20)
UNITS_S = {"minute": 60, "hour": 3600}


def limit_for(keys: list[tuple[str, str | None]], config: str) -> Any:
    """Return the limit that the service finds for a descriptor of these keys and values, as it looks for one."""
    within = json.loads(config)
    for key, value in keys:
        children = within["descriptors"]
        within = next(each for each in children if each["key"] == key and each.get("value") in {None, value})
    return within["rate_limit"]


def sent(limit: Limit) -> list[list[tuple[str, str | None]]]:
    """Return the keys and values of the descriptors that an edge sends; None where the value is the request's."""
    actions: Any = limit.shared_actions
    return [[entry(action) for action in each["actions"]] for each in actions]


def entry(action: dict[str, Any]) -> tuple[str, str | None]:
    if "extension" in action:
        return action["extension"]["typed_config"]["descriptor_key"], None
    if "metadata" in action:
        return action["metadata"]["descriptor_key"], "public_write"
    if "header_value_match" in action:
        return action["header_value_match"]["descriptor_key"], action["header_value_match"]["descriptor_value"]
    return next(iter(action)), None


@pytest.mark.parametrize("table", [TABLE, limits(rate_limit=7, public_write_limit=3)])
def test_the_limiter_has_the_edges_limit_for_whatever_an_edge_sends(table: tuple[Limit, ...]) -> None:
    config = rate_limiter_config(table)
    shared = [limit for limit in table if limit.is_shared]

    assert len(shared) == 3
    for limit in shared:
        for keys in sent(limit):
            assert limit_for(keys, config)["requests_per_unit"] == limit.amount


def test_a_window_lies_within_one_unit_of_the_limiters() -> None:
    config = rate_limiter_config(TABLE)

    for limit in (each for each in TABLE if each.is_shared):
        for keys in sent(limit):
            assert UNITS_S[limit_for(keys, config)["unit"]] % limit.window_s == 0


def test_a_window_that_no_unit_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 1000 s"):
        rate_limiter_config((Limit(amount=1, window_s=1000),))


def test_what_is_built_for_the_tests_is_what_the_image_holds() -> None:
    (commit,) = re.findall(r"^RATELIMIT := \S+-(\w{12})$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    compose = (REPOSITORY / "docker" / "compose.limits.yaml").read_text()
    (tag,) = re.findall(r"envoyproxy/ratelimit:(\w+)@sha256:[0-9a-f]{64}", compose)

    assert commit.startswith(tag)
