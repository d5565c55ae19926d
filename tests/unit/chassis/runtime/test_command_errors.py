"""What a command says about an error of the database: one line with what happened and what to do."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import exc

from chassis.errors import DatabaseUnavailable
from chassis.runtime import cli

# Of the server's errors that the driver calls operational, these mean that there is no server to answer.
NO_ANSWER: Final = ("08", "57P")
ANSWERS: Final = sorted(
    {
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, psycopg.OperationalError) and error.sqlstate
    },
    key=lambda error: str(error.sqlstate),
)


def said_about(error: Exception, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return what a command prints that ends with the error."""

    def fail() -> None:
        """Fail."""
        raise error

    module = ModuleType("failing")
    monkeypatch.setattr(module, "COMMANDS", {"migrate": fail}, raising=False)
    monkeypatch.setitem(sys.modules, "failing", module)
    monkeypatch.setattr(sys, "argv", ["notes_svc", "migrate"])
    monkeypatch.setenv("SERVICE_NAME", "notes_svc")
    with pytest.raises(SystemExit) as ended:
        cli.main("notes_svc", {"migrate": "failing"})
    return ended.value.code


@pytest.mark.parametrize("error", ANSWERS)
def test_a_server_that_answers_is_not_said_to_be_silent(
    error: type[psycopg.OperationalError], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_about(exc.OperationalError("", None, error("it cannot")), monkeypatch)

    is_silent = (error.sqlstate or "").startswith(NO_ANSWER)
    assert isinstance(said, str)
    assert said.startswith("The database does not answer: ") is is_silent
    assert "\n" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            errors.LockNotAvailable("canceling statement due to lock timeout"),
            "Another transaction holds a lock on what this needs. Run it again when that transaction has ended.",
        ),
        (
            errors.DeadlockDetected("deadlock detected\nDETAIL:  Process 1 waits for …"),
            "Another transaction was in the way: deadlock detected. Run it again.",
        ),
        (
            errors.DiskFull("could not extend file"),
            "The database's disk is full: could not extend file. Make room on it, and run this again.",
        ),
        (psycopg.OperationalError("connection refused"), "The database does not answer: connection refused"),
    ],
)
def test_an_error_is_said_with_what_to_do(error: psycopg.Error, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable = DatabaseUnavailable()
    unavailable.__cause__ = error

    assert said_about(error, monkeypatch) == said
    assert said_about(unavailable, monkeypatch) == said
