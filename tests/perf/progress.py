"""The measurements so far, in a file, so that an interrupted run continues where it ended."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from devstack.settings import REPOSITORY
from tests.perf.load import Load
from tests.perf.measure import Sample
from tests.perf.peer_processes import TOKEN_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.perf.measure import Key

# On another day the machine may be another one: figures of one run are compared with each other.
_MAX_AGE_S: Final = 12 * 3600
# The folders whose code the figures depend on. A change elsewhere, in documentation or tests, ends no run.
_MEASURED: Final = (
    *("chassis", "devstack", "envoy", "generated", "order_svc", "user_svc", "requirements", "tests/perf"),
    *("package-lock.json", "setup.py", "pyproject.toml"),
)


@dataclass(slots=True)
class Progress:
    """The figures of a run so far.

    Attributes:
        taken: samples, by what, whose and concurrency.
        singles: figures that are no samples, by key.
        details: what those are made of, by key.
        spent_s: seconds that the run has taken, interruptions left out.
        began_s: when it began, in seconds since 1970.
    """

    taken: dict[Key, list[Sample]] = field(default_factory=dict)
    singles: dict[str, float] = field(default_factory=dict)
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    spent_s: float = 0.0
    began_s: float = field(default_factory=time.time)

    def dump(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        taken = [[*key, [asdict(sample) for sample in samples]] for key, samples in self.taken.items()]
        rest = {"singles": self.singles, "details": self.details, "spent_s": self.spent_s, "began_s": self.began_s}
        return {"taken": taken, **rest}

    @classmethod
    def load(cls, document: dict[str, Any]) -> Progress:
        """Return what dump() made a document of."""
        taken = {
            (what, whose, concurrency): [_sample(each) for each in samples]
            for what, whose, concurrency, samples in document["taken"]
        }
        return cls(taken, **{name: document[name] for name in ("singles", "details", "spent_s", "began_s")})


def _sample(document: dict[str, Any]) -> Sample:
    return Sample(Load(**document["load"]), document["service"], document["cpu_us"])


class Kept:
    """The file with the progress of the last run, if it was interrupted.

    Attributes:
        progress: to continue; new if there is none, or if it is of other code, another kind of run or yesterday.
    """

    def __init__(self, file: Path, *, is_quick: bool, report: Callable[[str], None]) -> None:
        self._file: Final = file
        self._of: Final = {"code": _digest_of_code(), "is_quick": is_quick, "token_memory": TOKEN_MEMORY}
        self._started: Final = time.monotonic()
        self.progress: Final = self._found(report)
        self._spent_before_s: Final = self.progress.spent_s

    def save(self) -> None:
        """Write the progress, all of it or nothing."""
        self.progress.spent_s = self._spent_before_s + time.monotonic() - self._started
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"of": self._of, "progress": self.progress.dump()}))
        new.replace(self._file)

    def forget(self) -> None:
        """Remove the file: the run is complete."""
        self._file.unlink(missing_ok=True)

    def _found(self, report: Callable[[str], None]) -> Progress:
        try:
            document = json.loads(self._file.read_text())
        except FileNotFoundError:
            return Progress()
        progress = Progress.load(document["progress"])
        if document["of"] != self._of or time.time() - progress.began_s > _MAX_AGE_S:
            report("An interrupted run of other code, of another kind or of long ago is left alone: this one is new.")
            return Progress()
        samples = sum(map(len, progress.taken.values()))
        report(f"Going on with the run that was interrupted after {progress.spent_s:.0f} s and {samples} samples.")
        return progress


def _digest_of_code() -> str:
    """Return a digest of the files that figures depend on, committed or not; empty without git."""
    command = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *_MEASURED)
    try:
        listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
    digest = hashlib.sha256()
    for name in sorted(set(filter(None, listed.split("\0")))):
        file = REPOSITORY / name
        digest.update(name.encode() + b"\0" + (file.read_bytes() if file.is_file() else b""))
    return digest.hexdigest()
