"""SystemService: the health, uptime and memory of a replica."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shop.system.v1 import system_service_pb2 as pb
from shop.system.v1.system_service_pb2_grpc import SystemServiceServicer
from typing_extensions import override

if TYPE_CHECKING:
    from grpc import aio

    from chassis.database import Database
    from chassis.telemetry.settings import TelemetrySettings

_PAGE_KIB = resource.getpagesize() // 1024


class SystemServicer(SystemServiceServicer):
    """The SystemService of one replica.

    Attributes:
        is_draining: whether the replica is about to stop; the server sets it.
    """

    def __init__(self, settings: TelemetrySettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._started = time.monotonic()
        self.is_draining = False

    @override
    async def GetHealth(
        self,
        request: pb.GetHealthRequest,
        context: aio.ServicerContext[pb.GetHealthRequest, pb.Health],
    ) -> pb.Health:
        await self._database.ping()
        health = pb.Health(
            status=pb.HEALTH_STATUS_DRAINING if self.is_draining else pb.HEALTH_STATUS_HEALTHY,
            memory=_memory(),
            service=self._settings.service_name,
            version=self._settings.service_version,
        )
        health.timestamp.GetCurrentTime()
        health.uptime.FromNanoseconds(round((time.monotonic() - self._started) * 1e9))
        return health


def _memory() -> pb.MemoryUsage:
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rss_kib = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_KIB
    # The two are read one after the other, so the resident size may have passed the peak that was read before.
    return pb.MemoryUsage(rss_kib=rss_kib, peak_rss_kib=max(rss_kib, peak_kib))
