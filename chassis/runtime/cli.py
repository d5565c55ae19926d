"""The command line of a service: `python -m user_svc serve`, `migrate` and other commands."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy.exc
import uvloop

from chassis.errors import DomainError, StartupError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    Command = Callable[..., Awaitable[None] | None]


# Commands of earlier versions, and the command that does their work.
_REPLACED: Final = {"relay": "worker", "consume": "worker"}


def modules_of(package: str, *, serving: Iterable[str] = ()) -> dict[str, str]:
    """Return by the first word of a command the module that has it: those of every service, `serving` and `worker`.

    Args:
        package: the service's package.
        serving: the first words of further commands in its `serving`.
    """
    of_serving = dict.fromkeys(("serve", "migrate", *serving), f"{package}.serving")
    return of_serving | dict.fromkeys(("worker", "events"), f"{package}.worker")


def main(package: str, modules: Mapping[str, str]) -> None:
    """Run the command that the arguments name. An operator's mistake prints one line and exits with code 1.

    Only the module of that command is imported: a worker holds nothing that only a server needs.

    Args:
        package: the service's package.
        modules: by the first word of a command, the module that has it, as `commands_of` takes it.
    """
    os.environ.setdefault("SERVICE_NAME", package.rpartition(".")[2])
    word = "".join(sys.argv[1:2])
    if word in _REPLACED:
        sys.exit(f"`{word}` is part of `{_REPLACED[word]}`: run `python -m {package} {_REPLACED[word]}`.")
    # All of them for the help, and for the error that lists the commands.
    commands = commands_of([modules[word]] if word in modules else modules.values())
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    _add(parser, commands)
    arguments = vars(parser.parse_args())
    run: Command = arguments.pop("run")
    try:
        result: Any = run(**arguments)
        if inspect.isawaitable(result):
            uvloop.run(_wait(result))
    except StartupError as error:
        sys.exit(f"{error}.")
    except DomainError as error:
        sys.exit(error.message)
    except (sqlalchemy.exc.ProgrammingError, psycopg.errors.UndefinedTable) as error:
        cause = error.orig if isinstance(error, sqlalchemy.exc.ProgrammingError) else error
        if not isinstance(cause, psycopg.errors.UndefinedTable):
            raise
        sys.exit(f"The database is not ready: run `python -m {package} migrate` first.")
    except sqlalchemy.exc.OperationalError as error:
        # Only the first line: the others are the driver's guesses at the cause.
        sys.exit(f"The database does not answer: {error.orig}".splitlines()[0])


def commands_of(modules: Iterable[str]) -> dict[str, Command]:
    """Import the modules and return their commands by name, of one or more words: `serve`, `keys rotate`.

    They are in each module's `COMMANDS`. The first line of a function's docstring is the help. Parameters become
    required arguments, keyword-only parameters required options: `--since`.
    """
    found: dict[str, Command] = {}
    for module in modules:
        found |= importlib.import_module(module).COMMANDS
    return found


def _add(parser: argparse.ArgumentParser, commands: Mapping[str, Command]) -> None:
    groups: dict[str, Any] = {"": parser.add_subparsers(required=True, metavar="command")}
    for name, run in commands.items():
        described = (inspect.getdoc(run) or "").partition("\n")[0]
        group, _, word = name.rpartition(" ")
        command = _choices(group, groups).add_parser(word, help=described, description=described)
        for parameter in inspect.signature(run).parameters.values():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                command.add_argument(f"--{parameter.name}", required=True)
            else:
                command.add_argument(parameter.name)
        command.set_defaults(run=run)


def _choices(group: str, groups: dict[str, Any]) -> Any:
    """Return the subparsers of a group of commands; make the group if it is new."""
    if group not in groups:
        above, _, word = group.rpartition(" ")
        group_parser = _choices(above, groups).add_parser(word, help=f"{group} …")
        groups[group] = group_parser.add_subparsers(required=True, metavar="command")
    return groups[group]


async def _wait(result: Awaitable[None]) -> None:
    await result
