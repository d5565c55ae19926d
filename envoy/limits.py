"""How much one address may ask for: one table for the edge, which counts for itself, and for the rate limiter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from envoy.files import FILES, File

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE_LIMIT_WINDOW_S: Final = 900
"""The time for which the limits of `Edge` count."""

DOMAIN: Final = "edge"
"""Under which name the edge asks the rate limiter, and the limiter finds its limits."""

_HEALTH_WINDOW_S: Final = 60

_PAGE_KIB_PER_CALL: Final = 640
"""KiB of the page's files that an address may fetch, per call of its limit: 62 MiB for 100 calls, 29 times the page."""

_HEALTH_PER_CALL: Final = 3
"""How often it may ask for health within a minute for each call that it may make: 300 times for 100."""

_LARGEST_BUCKET: Final = 2**32 - 1

_ADDRESS: Final = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
"""Envoy's action for the caller's address: an IPv6 address stands for its /64 network."""

_UNITS_S: Final = {"minute": 60, "hour": 3600}
"""The windows of the rate limiter, which begin at whole multiples of themselves since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Some of the requests that count for a limit.

    Attributes:
        actions: Envoy's actions that recognise such a request; the caller's address comes after them.
        hits: how much one of them counts; None for once.
    """

    actions: tuple[Mapping[str, object], ...] = ()
    hits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much one address may ask for within a window.

    Attributes:
        amount: how much, in calls or in whatever `Counted.hits` counts.
        window_s: the window, in seconds.
        name: the descriptor entry, key and value, that the actions of `counted` make; None if they make none.
        counted: the requests that count.
        is_apart: whether only routes that say so are counted.
        is_shared: whether the rate limiter counts it too, for all edges together.
    """

    amount: int
    window_s: int
    name: tuple[str, str] | None = None
    counted: tuple[Counted, ...] = (Counted(),)
    is_apart: bool = False
    is_shared: bool = True

    @property
    def local_actions(self) -> list[dict[str, object]]:
        """Envoy's RateLimits by which an edge counts for itself."""
        return [_rate_limit(*each.actions, _ADDRESS, hits=each.hits) for each in self.counted]

    @property
    def shared_actions(self) -> list[dict[str, object]]:
        """Envoy's RateLimits by which the rate limiter counts: the same, and which window it is."""
        return [_rate_limit(_window(self.window_s), *each.actions, _ADDRESS, hits=each.hits) for each in self.counted]

    @property
    def entries(self) -> list[dict[str, str]]:
        """The descriptor for which an edge has a bucket. Without a value each address has one of its own."""
        named = [{"key": self.name[0], "value": self.name[1]}] if self.name else []
        return [*named, {"key": "masked_remote_address"}]


def limits(*, rate_limit: int, public_write_limit: int) -> tuple[Limit, ...]:
    """Return all limits of an edge. The limits of files and health checks grow with `rate_limit`.

    Args:
        rate_limit: as in `Edge`.
        public_write_limit: as in `Edge`.
    """
    return (
        Limit(amount=rate_limit, window_s=RATE_LIMIT_WINDOW_S),
        Limit(
            amount=public_write_limit,
            window_s=RATE_LIMIT_WINDOW_S,
            name=("limit", "public_write"),
            counted=(Counted(actions=(_ROUTES_LIMIT,)),),
        ),
        Limit(
            amount=min(_PAGE_KIB_PER_CALL * rate_limit, _LARGEST_BUCKET),
            window_s=RATE_LIMIT_WINDOW_S,
            name=("page", "kib"),
            counted=tuple(_file_sent(file) for file in FILES),
            is_apart=True,
            # It spares the edge that answers, out of its own memory; another edge has memory of its own.
            is_shared=False,
        ),
        Limit(
            amount=min(_HEALTH_PER_CALL * rate_limit, _LARGEST_BUCKET),
            window_s=_HEALTH_WINDOW_S,
            name=("health", "question"),
            counted=(Counted(actions=(_path("health", "question", r"/(health|grpc\.health|shop\.system).*"),)),),
            is_apart=True,
        ),
    )


def rate_limiter_config(all_limits: tuple[Limit, ...]) -> str:
    """Return the rate limiter's file of limits, as JSON, which is YAML too.

    The rate limiter knows minutes and hours, so a window of 15 minutes is part of what it counts by: the edge sends the
    window's number, and the limiter's hour only says when the key expires.
    """
    windows: dict[str, list[object]] = {}
    for limit in all_limits:
        if not limit.is_shared:
            continue
        unit = _unit_around(limit.window_s)
        within: dict[str, object] = {
            "key": "masked_remote_address",
            "rate_limit": {"unit": unit, "requests_per_unit": limit.amount},
        }
        if limit.name:
            within = {"key": limit.name[0], "value": limit.name[1], "descriptors": [within]}
        windows.setdefault(_window_key(limit.window_s), []).append(within)
    descriptors = [{"key": key, "descriptors": within} for key, within in windows.items()]
    return json.dumps({"domain": DOMAIN, "descriptors": descriptors}, indent=2) + "\n"


_ROUTES_LIMIT: Final = {
    "metadata": {
        "descriptor_key": "limit",
        "metadata_key": {"key": "shop.edge", "path": [{"key": "limit"}]},
        "source": "ROUTE_ENTRY",
    }
}
"""Envoy's action for what a route calls its limit."""


def _path(key: str, value: str, regex: str) -> dict[str, object]:
    match = {"name": ":path", "string_match": {"safe_regex": {"regex": regex}}}
    return {"header_value_match": {"descriptor_key": key, "descriptor_value": value, "headers": [match]}}


def _file_sent(file: File) -> Counted:
    return Counted(actions=(_path("page", "kib", rf"{file.path_regex}(\?.*)?"),), hits=file.size_kib)


def _rate_limit(*actions: Mapping[str, object], hits: int | None) -> dict[str, object]:
    return ({"hits_addend": {"number": hits}} if hits else {}) | {"actions": list(actions)}


def _window_key(window_s: int) -> str:
    return f"window_{window_s}s"


def _window(window_s: int) -> dict[str, object]:
    """Return Envoy's action for the number of the window that it is now."""
    expression = {
        "@type": "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor",
        "descriptor_key": _window_key(window_s),
        "text": f"int(request.time) / {window_s}",
    }
    return {"extension": {"name": "envoy.rate_limit_descriptors.expr", "typed_config": expression}}


def _unit_around(window_s: int) -> str:
    """Return the limiter's shortest unit that holds each window whole: it counts anew when its unit ends.

    Raises:
        ValueError: there is none.
    """
    for unit, unit_s in _UNITS_S.items():
        if unit_s % window_s == 0:
            return unit
    raise ValueError(f"no unit of the rate limiter is a multiple of {window_s} s")
