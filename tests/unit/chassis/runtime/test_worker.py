"""The parts of a worker begin together and end together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from chassis.runtime.worker import work

if TYPE_CHECKING:
    import asyncio


async def test_the_failure_of_one_part_ends_the_others_and_names_it() -> None:
    ended: list[str] = []

    async def patient(stopping: asyncio.Event) -> None:
        try:
            await stopping.wait()
        finally:
            ended.append("patient")

    async def broken(_stopping: asyncio.Event) -> None:
        raise KeyError("canary")

    with capture_logs() as logs, pytest.raises(KeyError, match="canary") as raised:
        await work({"patient": patient, "broken": broken})

    assert raised.value.__notes__ == ["This part of the worker has failed: broken."]
    assert ended == ["patient"]
    assert logs[0]["event"] == "worker.started"
    assert logs[0]["parts"] == ["patient", "broken"]
    assert "worker.stopped" not in [line["event"] for line in logs]
