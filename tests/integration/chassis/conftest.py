"""The notes service and its databases: what the tests of the chassis run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chassis.testing import ManualClock, new_uuid, plain_channel
from tests.integration.chassis.notes import notes_service
from tests.integration.databases import TestDatabase, fresh_database
from tests.integration.inprocess import NOTES, database_settings
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from devstack.postgres import PostgresServer


@pytest.fixture(scope="session")
def shared_notes(postgres: PostgresServer) -> Iterator[TestDatabase]:
    with fresh_database(postgres, NOTES) as database:
        yield database


@pytest.fixture(scope="session")
def shared_authors(postgres: PostgresServer) -> Iterator[TestDatabase]:
    with fresh_database(postgres, NOTES) as database:
        yield database


@pytest.fixture
def notes_database(shared_notes: TestDatabase) -> Iterator[TestDatabase]:
    """The notes service's database, empty."""
    yield shared_notes
    shared_notes.empty()


@pytest.fixture
def authors_database(shared_authors: TestDatabase) -> Iterator[TestDatabase]:
    """The database of another service, empty: of the one that publishes authors, of the library, of a reader of notes.

    It has the tables of the notes service too.
    """
    yield shared_authors
    shared_authors.empty()


@pytest.fixture
def notes_copy(postgres: PostgresServer) -> Iterator[TestDatabase]:
    """A database of the notes service for a test that breaks it."""
    with fresh_database(postgres, NOTES) as database:
        yield database


@pytest.fixture
async def notes_address(notes_database: TestDatabase, clock: ManualClock) -> AsyncIterator[str]:
    async with notes_service(database_settings(notes_database.url), clock=clock) as address:
        yield address


@pytest.fixture
async def notes(notes_address: str) -> AsyncIterator[NoteServiceStub]:
    """The notes service."""
    async with plain_channel(notes_address) as channel:
        yield NoteServiceStub(channel)


@pytest.fixture
def author() -> str:
    """The id of an author."""
    return new_uuid()
