"""A signal ends a process; what hangs is ended by force."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

import pytest

# The grace period is a tenth of a second here. `{after}` is what the process does once it was asked to stop.
PROCESS: Final = """
import asyncio
from chassis.runtime import shutdown

shutdown._FORCED_AFTER_S = 0.1

async def main():
    stopping = shutdown.stop_on_signal()
    print("ready", flush=True)
    await stopping.wait()
    {after}

asyncio.run(main())
"""


def exit_code(after: str, *signals: signal.Signals) -> int:
    process = subprocess.Popen([sys.executable, "-c", PROCESS.format(after=after)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        for each in signals:
            process.send_signal(each)
        process.stdout.read()
    return process.returncode


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_a_process_to_stop(by: signal.Signals) -> None:
    assert exit_code("return", by) == 0


@pytest.mark.parametrize("hangs", ["await asyncio.Event().wait()", "import threading; threading.Event().wait()"])
def test_a_process_that_hangs_is_ended_by_force(hangs: str) -> None:
    assert exit_code(hangs, signal.SIGTERM) == 1


def test_a_second_signal_changes_nothing() -> None:
    assert exit_code("await asyncio.sleep(0.01)", signal.SIGTERM, signal.SIGTERM) == 0
