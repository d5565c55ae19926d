"""Ratios of alternating measurements, and their goals (docs/performance.md)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.perf.measure import Key, Sample


def _service_cpu(sample: Sample) -> float:
    return sample.service_us


def _postgres_cpu(sample: Sample) -> float:
    return sample.cpu_us["postgres"]


def _rps(sample: Sample) -> float:
    return sample.load.rps


def _edge_cpu(sample: Sample) -> float:
    system = sample.service.partition(" ")[0]
    return sample.cpu_us[f"{system} edge"]


def _p99(sample: Sample) -> float:
    return sample.load.p99_ms


def _p50(sample: Sample) -> float:
    return sample.load.p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The bound of a figure: at least, or at most."""

    key: str
    bound: float
    is_minimum: bool

    @property
    def text(self) -> str:
        """The bound, as in the table."""
        return f"{'≥' if self.is_minimum else '≤'} {self.bound:g}"

    def is_met_by(self, value: float) -> bool:
        """Return whether it is good enough."""
        return value >= self.bound if self.is_minimum else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal(Bound):
    """A ratio of two cases, and what it should be.

    Attributes:
        value: what is compared.
        above: what was done, and by whom.
        below: the same of what it is divided by.
        at: the concurrencies; the worst of them counts.
    """

    value: Callable[[Sample], float]
    above: tuple[str, str]
    below: tuple[str, str]
    at: tuple[int, ...]

    def ratio(self, samples: Mapping[Key, Sequence[Sample]]) -> float | None:
        """Return the median of the rounds, at the worst concurrency; None if it was not measured."""
        found = []
        for concurrency in self.at:
            above, below = (samples.get((*case, concurrency), ()) for case in (self.above, self.below))
            if above and below:
                rounds = zip(above, below, strict=True)
                found.append(median(self.value(one) / self.value(other) for one, other in rounds))
        if not found:
            return None
        return min(found) if self.is_minimum else max(found)


def _goal(text: str, value: Callable[[Sample], float], above: str, below: str, *at: int) -> Goal:
    key, relation, bound = text.split()
    return Goal(
        key=key,
        bound=float(bound),
        is_minimum=relation == ">=",
        value=value,
        above=_case(above),
        below=_case(below),
        at=at,
    )


def _case(text: str) -> tuple[str, str]:
    what, _, whose = text.partition(" of ")
    return what, whose


_GET, _PUT, _EMPTY = "GetUser of shop", "CreateOrder of shop", "GetUser of empty"
_NAIVE_GET, _NAIVE_PUT = "GetUser of naive", "CreateOrder of naive"
_REST_GET, _REST_POST = "GET user of shop", "POST order of shop"
_EXPRESS_GET, _EXPRESS_POST = "GET user of express", "POST order of express"
_SAME_GET, _SAME_POST = "GET user of express-same", "POST order of express-same"
_HALF, _SAME_HALF = "GET user, 50% of shop", "GET user, 50% of express-same"

GOALS: Final = (
    _goal("read_p50_half_load_vs_express_same <= 1.2", _p50, _HALF, _SAME_HALF, 128),
    _goal("read_p99_half_load_vs_express_same <= 1.2", _p99, _HALF, _SAME_HALF, 128),
    _goal("read_p50_c1_vs_express_same <= 1.4", _p50, _REST_GET, _SAME_GET, 1),
    _goal("read_rps_c128_vs_express_same >= 1.4", _rps, _REST_GET, _SAME_GET, 128),
    _goal("read_rps_c32_vs_express_same >= 1.15", _rps, _REST_GET, _SAME_GET, 32),
    _goal("order_rps_c128_vs_express_same >= 2.5", _rps, _REST_POST, _SAME_POST, 128),
    _goal("order_rps_c128_vs_fastapi_same >= 4", _rps, _REST_POST, "POST order of fastapi-same", 128),
    _goal("read_rps_c128_vs_fastapi_same >= 3", _rps, _REST_GET, "GET user of fastapi-same", 128),
    _goal("edge_cpu_vs_transcoder_alone <= 1.15", _edge_cpu, _REST_GET, "GET user of bare", 128),
    _goal("create_order_cpu_vs_empty <= 1.9", _service_cpu, _PUT, _EMPTY, 32, 128),
    _goal("get_user_cpu_vs_empty <= 1.18", _service_cpu, _GET, _EMPTY, 32, 128),
    _goal("get_user_cpu_vs_go_same <= 3.0", _service_cpu, _GET, "GetUser of go-same", 32, 128),
    _goal("create_order_cpu_vs_go_same <= 2.5", _service_cpu, _PUT, "CreateOrder of go-same", 32, 128),
    _goal("get_user_cpu_naive_vs_ours >= 4", _service_cpu, _NAIVE_GET, _GET, 32, 128),
    _goal("create_order_cpu_naive_vs_ours >= 6", _service_cpu, _NAIVE_PUT, _PUT, 32, 128),
    _goal("rest_get_rps_vs_express_c128 >= 1.2", _rps, _REST_GET, _EXPRESS_GET, 128),
    _goal("rest_get_rps_vs_express_c32 >= 1.0", _rps, _REST_GET, _EXPRESS_GET, 32),
    _goal("rest_post_rps_vs_express_c128 >= 3.0", _rps, _REST_POST, _EXPRESS_POST, 128),
    _goal("rest_get_rps_vs_fastapi_c128 >= 5.0", _rps, _REST_GET, "GET user of fastapi", 128),
    _goal("rest_get_p50_c1_vs_express <= 1.5", _p50, _REST_GET, _EXPRESS_GET, 1),
    _goal("pg_cpu_per_read_naive_vs_ours >= 7", _postgres_cpu, _NAIVE_GET, _GET, 32, 128),
    _goal("cpu_4_replicas_vs_1 <= 1.1", _service_cpu, "GetUser of 4 replicas", "GetUser of 1 replica", 128),
    _goal("growth_get_user <= 1.2", _p50, "GetUser of many rows", "GetUser of few rows", 1),
    _goal("growth_create_order <= 1.2", _p50, "CreateOrder of many rows", "CreateOrder of few rows", 1),
    _goal("growth_page_1000 <= 1.2", _p50, "ListOrders of many rows", "ListOrders of few rows", 1),
)
TELEMETRY: Final = Bound(key="telemetry_cpu_vs_bare", bound=1.2, is_minimum=False)
RSS: Final = Bound(key="rss_mb_after_load", bound=150, is_minimum=False)
RSS_ALL: Final = Bound(key="rss_mb_all", bound=800, is_minimum=False)
BOUNDS: Final[tuple[Bound, ...]] = (*GOALS, TELEMETRY, RSS_ALL, RSS)
"""Everything that has a goal, in the order of the table."""
