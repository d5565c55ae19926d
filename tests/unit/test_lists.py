"""Every list of the contract is walked with the largest entries that it allows."""

from __future__ import annotations

from google.protobuf import descriptor_pool

from chassis.server import contract
from tests.support.guards import all_facts


def test_every_list_of_the_contract_is_walked_or_says_why_not() -> None:
    lists = {
        method.name
        for service in contract.service_names()
        for method in descriptor_pool.Default().FindServiceByName(service).methods
        if "next_page_token" in method.output_type.fields_by_name
    }

    known = all_facts("pages").keys()
    assert lists - known == set(), "say in [pages] of the service's guards.toml where it is walked, or why not"
    assert known - lists == set(), "no list any more"
