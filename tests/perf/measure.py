"""Measuring: who does what under which load, in turn, again and again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class Samples:
    """The samples so far, one a round: three of a second in a quick run, else five of five seconds."""

    meter: Meter
    is_quick: bool
    report: Callable[[str], None]
    taken: dict[Key, list[Sample]] = field(default_factory=dict)
    answered: Counter[tuple[str, str]] = field(default_factory=Counter)

    def take(self, cases: Sequence[Case[Any]], *, concurrency: int, rounds: int | None = None) -> None:
        """Measure the cases in turn, as often as there are rounds."""
        seconds, usual_rounds = (1, 3) if self.is_quick else (5, 5)
        for case in cases:  # caches, pools and compilers warm up
            case.prepare()
            self._run(case, concurrency, 1)
        for _ in range(rounds or usual_rounds):
            for case in cases:
                sample = self._sample(case, concurrency, seconds)
                self.taken.setdefault((case.what, case.whose, concurrency), []).append(sample)
        for case in cases:
            last = self.taken[case.what, case.whose, concurrency][-1]
            self.report(f"  {case.what:<16} {case.whose:<14} c={concurrency:<4} {last.load.rps:8.0f} /s")

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
        load: Load = case.load.run(concurrency=concurrency, seconds=seconds)
        self.answered[case.what, case.whose] += load.requests
        return load
