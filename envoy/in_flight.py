"""What an edge that is to stop still waits for."""

from typing import Final

STATS_PATH: Final = "/stats?filter=^(http\\.edge\\.downstream_rq_active|cluster\\..*_streams\\.upstream_rq_active)$"
"""Where Envoy's admin interface says what `calls_in_flight` wants to know."""


def calls_in_flight(stats: str) -> int:
    """Return how many calls the edge has not answered yet, without streams.

    Streams would last for as long as nobody ends them. Who is cut off opens the next one elsewhere and misses nothing.

    Args:
        stats: what Envoy answered, a line `name: number` each; may be nothing.
    """
    numbers = {name: int(number) for name, _, number in (line.partition(": ") for line in stats.splitlines()) if number}
    calls = numbers.pop("http.edge.downstream_rq_active", 0)
    return calls - sum(numbers.values())
