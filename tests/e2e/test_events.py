"""Every event that a service writes is the message that the contract has for its type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format

from chassis.events.cloudevents import payload_of
from chassis.service import services
from tests.e2e.contract import RPCS
from tests.support.events import MESSAGES

if TYPE_CHECKING:
    from chassis.service import Service
    from tests.e2e.world import World


@pytest.mark.parametrize("service", [each for each in services() if each.publishes], ids=lambda each: each.name)
def test_the_data_of_every_event_is_the_message_of_its_type(world: World, service: Service) -> None:
    for rpc in RPCS:
        if rpc.service in service.serves and rpc.has_request_id:
            assert not world.edge.grpc(rpc, world.request(rpc.name)).is_refusal

    with world.database_of(service.name) as connection:
        rows = connection.execute("SELECT type, data FROM outbox").fetchall()

    assert {kind for kind, _ in rows} == {kind for kind in MESSAGES if kind.partition(".")[0] == service.publishes}
    for kind, data in rows:
        # Unknown fields are refused.
        assert payload_of(json_format.ParseDict(data, MESSAGES[kind]())) == data
