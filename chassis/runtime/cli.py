"""The command line of a service: `python -m user_svc serve`, `migrate` and other commands."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import psycopg
import sqlalchemy.exc
import uvloop
from psycopg import errors

from chassis.errors import DatabaseUnavailable, DomainError, StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from types import FrameType

    Command = Callable[..., Coroutine[Any, Any, None] | None]

# Commands of earlier releases. Supervisors may still start them.
_REPLACED_BY_WORKER: Final = ("relay", "consume")
# Classes of SQLSTATE with which a server ends the connection: it is lost, or the server starts or stops.
_NO_ANSWER: Final = ("08", "57P")
# What an operator can do about errors of the server; the first entry that fits counts.
_SAID: Final[dict[tuple[type[psycopg.Error], ...], str]] = {
    (errors.UndefinedTable,): "The database is not ready: run `python -m {package} migrate` first.",
    (errors.InsufficientPrivilege,): (
        "The database refuses: {error}. Use the URL of a role that may, as the tables' owner."
    ),
    (errors.ReadOnlySqlTransaction,): ("The database refuses: {error}. Use the URL of the server that takes writes."),
    (errors.DuplicateTable, errors.DuplicateObject): (
        "The database refuses: {error}. Give the service a database of its own."
    ),
    (errors.LockNotAvailable,): (
        "Another transaction holds a lock on what this needs. Run it again when that transaction has ended."
    ),
    (errors.DeadlockDetected, errors.SerializationFailure): (
        "Another transaction was in the way: {error}. Run it again."
    ),
    (errors.DiskFull,): "The database's disk is full: {error}. Make room on it, and run this again.",
    (errors.QueryCanceled,): "The database has ended the statement: {error}. Run it again.",
}


def modules_of(package: str, *, serving: Iterable[str] = ()) -> dict[str, str]:
    """Return by the first word of a command the module that has it: those of every service, `serving` and `worker`.

    `serving` has the first words of further commands in the service's module of that name.
    """
    of_serving = dict.fromkeys(("serve", "migrate", *serving), f"{package}.serving")
    return of_serving | dict.fromkeys(("worker", "events"), f"{package}.worker")


def main(package: str, modules: Mapping[str, str]) -> None:
    """Run the command that the arguments name. An operator's mistake prints one line and exits with code 1.

    Only the module of that command is imported: a worker holds nothing that only a server needs.
    """
    # Process 1 of a container has no default action for SIGTERM: without this, a migration or a server that is still
    # starting would run on until SIGKILL. Commands that stop in order replace this handler by their own.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(package, modules)
    except _Terminated:
        sys.exit(128 + signal.SIGTERM)


def _run(package: str, modules: Mapping[str, str]) -> None:
    if not os.environ.get("SERVICE_NAME", "").strip():
        os.environ["SERVICE_NAME"] = package.rpartition(".")[2]
    word = "".join(sys.argv[1:2])
    if word in _REPLACED_BY_WORKER and word not in modules:
        sys.exit(f"`{word}` is replaced: run `python -m {package} worker`, which publishes and consumes.")
    # All of them for the help, and for the error that lists the commands.
    commands = commands_of([modules[word]] if word in modules else modules.values())
    parser = argparse.ArgumentParser(prog=f"python -m {package}")
    _add(parser, commands)
    arguments = vars(parser.parse_args())
    run: Command = arguments.pop("run")
    try:
        result: Any = run(**arguments)
        if inspect.iscoroutine(result):
            uvloop.run(result)
    except StartupError as error:
        sys.exit(f"{error}.")
    except DatabaseUnavailable as error:
        sys.exit(_said_of(_database_error(error.__cause__), package) or error.message)
    except DomainError as error:
        sys.exit(error.message)
    except (sqlalchemy.exc.DBAPIError, psycopg.Error) as error:
        said = _said_of(_database_error(error), package)
        if not said:
            raise
        sys.exit(said)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came. For a KeyboardInterrupt psycopg cancels the statement that runs, and for no other exception."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _database_error(error: BaseException | None) -> psycopg.Error | None:
    cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def _said_of(error: psycopg.Error | None, package: str) -> str:
    """Return what to do about an error that an operator can repair; an empty text for others, which are defects."""
    for kinds, said in _SAID.items():
        if isinstance(error, kinds):
            return said.format(package=package, error=_in_one_line(error))
    if not isinstance(error, psycopg.OperationalError):
        return ""
    is_answer = error.sqlstate and not error.sqlstate.startswith(_NO_ANSWER)
    return f"The database {'refuses' if is_answer else 'does not answer'}: {_in_one_line(error)}"


def _in_one_line(error: psycopg.Error) -> str:
    """Return what the server says, or of several addresses what each of them says, without the driver's guesses."""
    first, *others = str(error).splitlines() or [type(error).__name__]
    attempts = [line.removeprefix("- ") for line in others if line.startswith("- ")]
    return "; ".join(attempts) if attempts else first


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
