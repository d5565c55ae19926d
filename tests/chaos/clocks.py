"""Clocks that can be set while a process runs, by libfaketime. Its monotonic clock is left alone, as by a real jump."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# Python imports what is in there at its start: libfaketime 0.9.10 breaks its time.sleep().
_SITE: Final = Path(__file__).parent / "faketime_site"
LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


class Clock:
    """The time of day of the processes that run with `env`; right until it is set."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """Let the clock be ahead by so much from now on; behind, if it is negative."""
        # Renamed, so that no process reads an empty file and takes the clock for right.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead_s:+d}\n")
        fresh.replace(self._file)

    @property
    def env(self) -> Mapping[str, str]:
        """The environment variables of a process that goes by this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Seconds between two looks at the file, which take longer than a statement.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(_SITE),
        }


def clean_up() -> None:
    """Remove what processes that were killed have left: libfaketime would refuse to run in the next one of that pid."""
    for left in Path("/dev/shm").glob("*faketime_*"):
        if not Path("/proc", left.name.rpartition("_")[2]).exists():
            left.unlink(missing_ok=True)
