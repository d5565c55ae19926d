"""`python -m envoy`: print the edge's configuration (`render`) or the limiter's (`limits`), run the edge (`run`)."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from envoy.edge import SERVED_BY, Address, Edge, require_origin
from envoy.environments import ADMIN_PORT, KEYS_PORT, PORT, compose, kubernetes, laptop
from envoy.render import render, render_rate_limiter, render_secrets
from envoy.run import run


def _told(parse: Callable[[str], object], must_be: str) -> Callable[[str], object]:
    """Return the function with an error that says what the value must be."""

    def parsed(text: str) -> object:
        try:
            return parse(text.strip())
        except (ValueError, KeyError):
            raise argparse.ArgumentTypeError(f"must be {must_be}") from None

    return parsed


def _bounded(kind: Callable[[str], float], low: int, high: int, *, noun: str) -> Callable[[str], object]:
    def parse(text: str) -> float:
        number = kind(text)
        if not low <= number <= high:
            raise ValueError
        return number

    return _told(parse, f"{noun} from {low} to {high}")


def _whole(low: int, high: int) -> Callable[[str], object]:
    return _bounded(int, low, high, noun="a whole number")


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    for origin in origins:
        require_origin(origin)
    return origins


_ADDRESS: Final = _told(Address.parse, "host:port, http://host:port or https://host:port")
_EVERYWHERE: Final[Mapping[str, Callable[[str], object]]] = {
    "address": _told(lambda text: str(ip_address(text.strip("[]"))), "an IP address, such as 0.0.0.0 or ::"),
    "rate_limit": _whole(1, 1_000_000_000),
    "public_write_limit": _whole(1, 1_000_000_000),
    "rate_limiter": _ADDRESS,
    "trusted_hops": _whole(0, 10),
    "cors_origins": _told(_origins, "origins separated by commas, such as https://shop.example"),
    "hsts": _told({"on": True, "off": False}.__getitem__, "on or off"),
    "metrics_port": _whole(0, 65535),
    "traces_to": _ADDRESS,
    "traces_authority": Path,
    "trace_sampling": _bounded(float, 0, 100, noun="a number"),
}
"""The options of every environment, and the function that parses each value."""


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(prog="python -m envoy")
    commands = parser.add_subparsers(required=True)
    _add_render(commands.add_parser("render", help="print the configuration of one environment"))
    _add_limits(commands.add_parser("limits", help="write the rate limiter's file of limits"))
    _add_run(commands.add_parser("run", help="run the edge in a container until SIGTERM"))
    arguments = parser.parse_args()
    given = {name: value for name, value in vars(arguments).items() if name in _EVERYWHERE}
    sys.exit(arguments.do(replace(_edge(arguments), **given), arguments))


def _add_render(command: argparse.ArgumentParser) -> None:
    _add_everywhere(command, environments=("laptop", "compose", "kubernetes"))
    command.add_argument(
        "--secrets-into", type=Path, help="a folder for the files that name the certificates for Envoy"
    )
    on_laptop = command.add_argument_group("laptop")
    on_laptop.add_argument("--port", type=int, default=PORT)
    on_laptop.add_argument("--admin-port", type=int, default=ADMIN_PORT)
    on_laptop.add_argument("--keys-port", type=int, default=KEYS_PORT)
    for cluster in SERVED_BY:
        on_laptop.add_argument(
            f"--{cluster.replace('_', '-')}-ports", type=int, nargs="+", dest=cluster, default=[50051]
        )
    command.set_defaults(do=_render)


def _add_limits(command: argparse.ArgumentParser) -> None:
    _add_everywhere(command, environments=("compose", "kubernetes"))
    command.add_argument("--into", type=Path, required=True, help="the file")
    command.set_defaults(do=_write_limits)


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_everywhere(command, environments=("compose", "kubernetes"))
    threads = _whole(1, 256)
    command.add_argument("--concurrency", type=threads, default=2, help="threads that Envoy works with")
    command.set_defaults(do=lambda edge, arguments: run(edge, concurrency=arguments.concurrency))


def _add_everywhere(command: argparse.ArgumentParser, *, environments: tuple[str, ...]) -> None:
    command.add_argument("--environment", choices=environments, required=True)
    command.add_argument("--prefix", default="", help="kubernetes: the beginning of the names of the services")
    everywhere = command.add_argument_group(
        "everywhere", "Edge in edge.py explains them. A variable may give an option too: EDGE_RATE_LIMIT"
    )
    for name, kind in _EVERYWHERE.items():
        # By variables, because compose files merge those and replace commands. An option that is not given keeps the
        # default of Edge.
        given = os.environ.get(f"EDGE_{name.upper()}", "").strip() or argparse.SUPPRESS
        everywhere.add_argument(f"--{name.replace('_', '-')}", type=kind, default=given)


def _render(edge: Edge, arguments: argparse.Namespace) -> None:
    if arguments.secrets_into:
        for name, secret in render_secrets(edge).items():
            (arguments.secrets_into / name).write_text(secret)
    sys.stdout.write(render(edge))


def _write_limits(edge: Edge, arguments: argparse.Namespace) -> None:
    # In one step: the rate limiter reads the file when it changes.
    unfinished = arguments.into.with_name(f".{arguments.into.name}.new")
    unfinished.write_text(render_rate_limiter(edge))
    unfinished.replace(arguments.into)


def _edge(arguments: argparse.Namespace) -> Edge:
    if arguments.environment == "compose":
        return compose()
    if arguments.environment == "kubernetes":
        return kubernetes(prefix=arguments.prefix)
    return laptop(
        port=arguments.port,
        admin_port=arguments.admin_port,
        keys_port=arguments.keys_port,
        service_ports={cluster: getattr(arguments, cluster) for cluster in SERVED_BY},
    )


if __name__ == "__main__":
    main()
