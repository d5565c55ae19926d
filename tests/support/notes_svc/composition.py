"""How the notes service is put together: of the same parts in a process of its own and in a test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.composition import CLOCK, Foundation, ServiceSettings
from chassis.settings import sections
from chassis.watch.changefeed import Changefeed
from chassis.watch.settings import WatchSettings
from tests.support.notes_svc.keys import TheKey
from tests.support.notes_svc.library import Library
from tests.support.notes_svc.notes_pb2_grpc import (
    add_KeyServiceServicer_to_server,
    add_NoteServiceServicer_to_server,
)
from tests.support.notes_svc.rpc import KeyServicer, NoteServicer, note_watch_hub
from tests.support.notes_svc.service import NoteService
from tests.support.notes_svc.settings import KeySettings, LibrarySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from chassis.clock import Clock
    from chassis.server.application import Application


@sections
class Settings(ServiceSettings):
    """The sections that serving reads."""

    keys: KeySettings
    library: LibrarySettings
    breaker: BreakerSettings
    watch: WatchSettings


@contextlib.asynccontextmanager
async def build(
    settings: Settings,
    *,
    clock: Clock = CLOCK,
    token: Callable[[], str] | None = None,
    servicer_class: type[NoteServicer] = NoteServicer,
) -> AsyncIterator[Application]:
    """Put the notes service together; close its connections when the block ends.

    Args:
        settings: of all parts.
        clock: tells the time of notes.
        token: the access token for calls of the library, where no certificate says who calls.
        servicer_class: answers NoteService.
    """
    async with Foundation.open("tests.support.notes_svc", settings, clock=clock) as base:
        library = None
        if settings.library.url:
            channel = await base.connect(settings.library, to="notes_svc", token=token)
            library = Library(channel, Breaker("library", settings.breaker, is_failure=is_dependency_failure))
        key = TheKey(settings.keys)
        watch_hub = note_watch_hub(Changefeed(base.database, owner_field="authorId"), settings.watch)
        servicer = servicer_class(NoteService(base.database, library, clock), watch_hub, clock)
        yield base.application(
            (add_NoteServiceServicer_to_server, servicer),
            (add_KeyServiceServicer_to_server, KeyServicer(key)),
            keys=key,
            streams=watch_hub,
        )
