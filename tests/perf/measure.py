"""Measuring: who does what under which load, in turn, again and again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from tests.perf.load import LoadFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.perf.cpu import Meter
    from tests.perf.load import Load

    Key = tuple[str, str, int]

_LEAST_SHOWN_US: Final = 0.5
# Health checks and the like of an idle system are some percent of a core.
_SETTLE_S, _IDLE_SHARE, _SETTLE_TIMEOUT_S = 0.2, 0.15, 15.0


class Generator(Protocol):
    """Makes load."""

    def run(self, *, concurrency: int, seconds: float) -> Load:
        """Return what came back."""


Load_ = TypeVar("Load_", bound=Generator)


@dataclass(frozen=True, slots=True)
class Case(Generic[Load_]):
    """One thing to measure.

    Attributes:
        what: is done: `GetUser`.
        whose: does it: `shop`.
        load: on it.
        service: the label of the process that is the service in question.
        prepare: is called before each time.
    """

    what: str
    whose: str
    load: Load_
    service: str
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: the load, and by label the CPU of each process, in microseconds a request."""

    load: Load
    service: str
    cpu_us: Mapping[str, float]

    @property
    def service_us(self) -> float:
        """CPU of the service in question."""
        return self.cpu_us[self.service]


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and for how long a case is measured.

    Attributes:
        rounds: samples of each case.
        seconds: of one sample.
    """

    rounds: int
    seconds: float


FULL: Final = Pace(5, 5)
QUICK: Final = Pace(3, 3)
# The first load on a system: Node.js compiles for seconds, and pools open their connections.
_FIRST_WARM_UP_S: Final = 4
_WARM_UP_S: Final = 1


@dataclass(slots=True)
class Samples:
    """The samples so far, one a round.

    Attributes:
        keep: is called when another sample was taken.
        taken: by what, whose and concurrency. Samples that are there already are not taken again.
        answered: how many requests of each kind each system has answered, since it was started.
    """

    meter: Meter
    is_quick: bool
    report: Callable[[str], None]
    keep: Callable[[], None] = lambda: None
    taken: dict[Key, list[Sample]] = field(default_factory=dict)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, cases: Sequence[Case[Any]], *, concurrency: int, pace: Pace | None = None) -> None:
        """Measure the cases in turn, as often as there are rounds. Rounds that are complete are not repeated."""
        pace = pace or (QUICK if self.is_quick else FULL)
        series = [self.taken.setdefault((case.what, case.whose, concurrency), []) for case in cases]
        complete = min(len(samples) for samples in series)
        if complete >= pace.rounds:
            return
        for samples in series:
            del samples[complete:]  # ratios compare samples of one round
        for case in cases:
            case.prepare()
            is_first = not self.answered[_kind(case), case.whose]
            self._run(case, concurrency, _FIRST_WARM_UP_S if is_first else _WARM_UP_S)
        for _ in range(complete, pace.rounds):
            for case, samples in zip(cases, series, strict=True):
                samples.append(self._sample(case, concurrency, pace.seconds))
            self.keep()
        for case, samples in zip(cases, series, strict=True):
            self.report(f"  {case.what:<16} {case.whose:<14} c={concurrency:<4} {samples[-1].load.rps:8.0f} /s")

    def rps(self, what: str, whose: str, concurrency: int) -> float:
        """Return the median of the requests a second of a case that was measured."""
        return median(sample.load.rps for sample in self.taken[what, whose, concurrency])

    def _sample(self, case: Case[Any], concurrency: int, seconds: float) -> Sample:
        case.prepare()
        self._settle()
        before = self.meter.cpu_us()
        load = self._run(case, concurrency, seconds)
        if not load.requests:
            raise LoadFailed(f"{case.what} of {case.whose}: no answer in {seconds} s. Is this machine busy?")
        spent = {label: us / load.requests for label, us in (self.meter.cpu_us() - before).items()}
        return Sample(load, case.service, {label: us for label, us in spent.items() if us >= _LEAST_SHOWN_US})

    def _settle(self) -> None:
        """Wait until earlier work is finished: events to publish, pages to write, logs to flush."""
        deadline = time.monotonic() + _SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            before = self.meter.cpu_us()
            time.sleep(_SETTLE_S)  # for as long CPU is counted
            if (self.meter.cpu_us() - before).total() < _IDLE_SHARE * _SETTLE_S * 1e6:
                return

    def _run(self, case: Case[Any], concurrency: int, seconds: float) -> Load:
        try:
            load: Load = case.load.run(concurrency=concurrency, seconds=seconds)
        except LoadFailed as error:
            raise LoadFailed(f"{case.what} of {case.whose}, c={concurrency}: {error}") from error
        self.answered[_kind(case), case.whose] += load.requests
        return load


def _kind(case: Case[Any]) -> str:
    """Return what is asked, without the rate: `GET user` of `GET user, 50%`."""
    return case.what.partition(",")[0]
