"""`python -m envoy render`: print the edge's configuration for one environment."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from envoy.environments import ADMIN_PORT, KEYS_PORT, PORT, compose, kubernetes, laptop
from envoy.render import SERVED_BY, Address, Edge, render, render_secrets


def _origins(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


_EVERYWHERE: Final[Mapping[str, Callable[[str], object]]] = {
    "rate_limit": int,
    "public_write_limit": int,
    "trusted_hops": int,
    "cors_origins": _origins,
    "metrics_port": int,
    "traces_to": Address.parse,
    "trace_sampling": float,
}
"""What the operator of any environment may set, and how it is read."""


def main() -> None:
    """Print the configuration that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m envoy")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("render", help="print the configuration of one environment")
    command.add_argument("--environment", choices=("laptop", "compose", "kubernetes"), required=True)
    command.add_argument(
        "--secrets-into", type=Path, help="a folder for the files that tell Envoy where the certificates are"
    )
    everywhere = command.add_argument_group("everywhere", "Edge in render.py explains them")
    for name, kind in _EVERYWHERE.items():
        # Not given: as Edge has it.
        everywhere.add_argument(f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS)
    on_laptop = command.add_argument_group("laptop")
    on_laptop.add_argument("--port", type=int, default=PORT)
    on_laptop.add_argument("--admin-port", type=int, default=ADMIN_PORT)
    on_laptop.add_argument("--keys-port", type=int, default=KEYS_PORT)
    for cluster in SERVED_BY:
        on_laptop.add_argument(
            f"--{cluster.replace('_', '-')}-ports", type=int, nargs="+", dest=cluster, default=[50051]
        )
    arguments = parser.parse_args()
    given = {name: value for name, value in vars(arguments).items() if name in _EVERYWHERE}
    edge = replace(_edge(arguments), **given)
    if arguments.secrets_into:
        for name, secret in render_secrets(edge).items():
            (arguments.secrets_into / name).write_text(secret)
    sys.stdout.write(render(edge))


def _edge(arguments: argparse.Namespace) -> Edge:
    if arguments.environment == "compose":
        return compose()
    if arguments.environment == "kubernetes":
        return kubernetes()
    return laptop(
        port=arguments.port,
        admin_port=arguments.admin_port,
        keys_port=arguments.keys_port,
        service_ports={cluster: getattr(arguments, cluster) for cluster in SERVED_BY},
    )


if __name__ == "__main__":
    main()
