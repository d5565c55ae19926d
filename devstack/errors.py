"""Errors of the stack, with messages for the user at the terminal."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start. The message is one line that says what to do."""


class ProcessFailed(StackError):
    """A process ended, or was not ready in time, while the stack needed it.

    The message carries the last lines of the process's log below its first line.
    """

    def __init__(self, name: str, what: str, *, log: str, tail: list[str]) -> None:
        indented = "".join(f"\n    {line}" for line in tail)
        super().__init__(f"{name} {what}. The end of its log, {log}:{indented or ' (empty)'}")
        self.name = name
        self.what = what
        self.log = log
        self.tail = tail
