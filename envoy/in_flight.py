"""The calls that a stopping edge waits for."""

import time
from http.client import HTTPConnection, HTTPException
from typing import Final

STATS_PATH: Final = "/stats?filter=^(http\\.edge\\.downstream_rq_active|cluster\\..*_streams\\.upstream_rq_active)$"
"""The path in Envoy's admin interface that returns the input of `calls_in_flight`."""

_POLL_S: Final = 0.05
_TIMEOUT_S: Final = 2


def drain(admin_port: int, *, drain_s: float, finish_s: float) -> None:
    """Tell callers to leave, for `drain_s` seconds; then let running calls finish, for `finish_s` seconds at most."""
    ask("POST", "/drain_listeners?graceful&skip_exit", port=admin_port)
    time.sleep(drain_s)
    deadline = time.monotonic() + finish_s
    while calls_in_flight(ask("GET", STATS_PATH, port=admin_port)[1]) > 0 and time.monotonic() < deadline:
        time.sleep(_POLL_S)


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


def ask(method: str, path: str, *, port: int) -> tuple[int, str]:
    """Return the status and body of the answer of Envoy on this machine; status 0 without an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, HTTPException):
        return 0, ""
    finally:
        connection.close()
