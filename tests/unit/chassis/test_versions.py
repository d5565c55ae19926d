from __future__ import annotations

import dataclasses

import pytest
from pydantic import TypeAdapter

from chassis.errors import EtagMismatch
from chassis.versions import Versioned, etag_of
from tests.support.builders import NOON


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thing(Versioned):
    name: str


def a_thing(*, version: int = 3) -> Thing:
    return Thing(name="First", created_at=NOON, updated_at=NOON, version=version)


@pytest.mark.parametrize("etag", ["", "v3"])
def test_a_resource_accepts_a_missing_etag_and_its_own(etag: str) -> None:
    a_thing().require_etag(etag)


@pytest.mark.parametrize("etag", ["v2", "v4", "v33", "3", "V3", "v3\0", '"v3"'])
def test_a_resource_refuses_every_other_etag_and_names_its_own(etag: str) -> None:
    with pytest.raises(EtagMismatch) as refused:
        a_thing().require_etag(etag)

    assert refused.value.metadata == {"etag": "v3"}


def test_each_version_has_an_etag_of_its_own() -> None:
    etags = [a_thing(version=version).etag for version in range(1, 100)]

    assert len(set(etags)) == len(etags)
    assert etags[0] == etag_of(1) == "v1"


def test_a_stored_resource_is_read_with_its_version() -> None:
    adapter = TypeAdapter(Thing)

    assert adapter.validate_json(adapter.dump_json(a_thing())) == a_thing()
