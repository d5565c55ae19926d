"""The calls that a stopping edge waits for."""

from typing import Final

STATS_PATH: Final = "/stats?filter=^(http\\.edge\\.downstream_rq_active|cluster\\..*_streams\\.upstream_rq_active)$"
"""The path in Envoy's admin interface that returns the input of `calls_in_flight`."""


def calls_in_flight(stats: str) -> int:
    """Return how many calls the edge has not answered yet, without streams.

    A stream lasts until one side ends it, so waiting for streams could take an hour. A client whose stream is cut off
    resumes it at another edge and misses nothing.

    Args:
        stats: Envoy's answer, lines of the form `name: number`; may be empty.
    """
    numbers = {name: int(number) for name, _, number in (line.partition(": ") for line in stats.splitlines()) if number}
    calls = numbers.pop("http.edge.downstream_rq_active", 0)
    return calls - sum(numbers.values())
