"""One line a fault, at the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.record import Record
    from tests.chaos.validation import Findings


class Report:
    """The results of the tests.

    Attributes:
        lines: to be printed.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, fault: str, record: Record, findings: Findings, *, facts: str = "") -> None:
        """Add the line of one fault.

        Args:
            fault: what happened.
            record: what the load saw.
            findings: what the database says.
            facts: more figures.
        """
        figures = [
            f"{record.requests} requests",
            f"{len(record.errors)} errors",
            f"{len(findings.doubled)} doubled",
            f"{len(findings.lost)} lost",
            f"{len(record.failures)} failed attempts",
            f"slowest {record.slowest_s():.2f} s",
        ]
        self.say(f"{fault}: {', '.join(figures)}{'; ' if facts else ''}{facts}")
        for outcome, count in record.failed_outcomes().most_common():
            self.say(f"    {count} x {outcome}")

    def say(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)
