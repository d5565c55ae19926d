"""The table of access has every rpc of the contract, and says what the protos say."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pool
from shop.system.v1 import access_pb2

from chassis.server.contract import service_names
from tests.support.access_table import ALLOWED, FOREIGN, REQUESTS

METHODS = {
    method.full_name: method
    for service in service_names()
    for method in descriptor_pool.Default().FindServiceByName(service).methods
}


def test_every_rpc_is_in_the_table() -> None:
    missing, stale = METHODS.keys() - ALLOWED.keys(), ALLOWED.keys() - METHODS.keys()

    assert missing == set(), "say who may call it in tests/services/<service>/guards.toml, [access]"
    assert stale == set()


def test_every_rpc_for_owners_has_an_answer_for_others_and_a_request_of_its_owner() -> None:
    for_owners = {name for name, allowed in ALLOWED.items() if "owner" in allowed.split()}

    assert FOREIGN.keys() == for_owners, "say what others are answered in the guards.toml of the service, [foreign]"
    assert for_owners <= REQUESTS.keys(), "write a request into OF_SUBJECT of the service's requests.py"


@pytest.mark.parametrize("method", METHODS)
def test_the_protos_say_what_the_table_says(method: str) -> None:
    access = METHODS[method].GetOptions().Extensions[access_pb2.access]

    roles = [access_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in access.roles]
    told = {"everybody"} if access.public else {*roles, *(["owner"] if access.owner else [])}
    assert told == set(ALLOWED[method].split())
