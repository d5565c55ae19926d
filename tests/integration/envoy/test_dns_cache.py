"""Rollouts wait for the caches of DNS: `helm test` asks how long they keep an address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from envoy.dns_cache import NameUnknown, Resolver, complaint
from tests.support.name_server import NameServer, name_server

if TYPE_CHECKING:
    from pathlib import Path


def asking(server: NameServer, *search: str) -> Resolver:
    return Resolver(host="127.0.0.1", port=server.port, search=search)


@pytest.mark.parametrize("pods", [1, 25])
async def test_what_dns_says_of_its_answer_is_how_long_it_is_kept(pods: int) -> None:
    async with name_server(*(f"10.0.0.{pod}" for pod in range(pods))) as server:
        server.ttls_s = [30]

        kept_s = await asyncio.to_thread(asking(server).longest_ttl_s, "user-svc-headless.shop.svc.cluster.local")

    assert kept_s == 30


async def test_an_answer_out_of_a_cache_is_not_mistaken_for_a_short_time() -> None:
    async with name_server("10.0.0.1") as server:
        server.ttls_s = [2, 1, 30]  # what is left of 30 s, and then a new one

        kept_s = await asyncio.to_thread(asking(server).longest_ttl_s, "user-svc-headless")

    assert kept_s == 30


async def test_a_name_is_looked_for_in_the_domains_of_the_host(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n")

    assert Resolver.of_this_host(conf) == Resolver(
        host="10.96.0.10", search=("shop.svc.cluster.local", "svc.cluster.local")
    )


async def test_a_name_without_an_address_is_unknown() -> None:
    async with name_server() as server:
        with pytest.raises(NameUnknown):
            await asyncio.to_thread(asking(server, "cluster.local").ttl_s, "user-svc-headless")


def test_the_defaults_suit_coredns_as_it_comes_and_not_a_cache_of_30_s() -> None:
    assert not complaint("user-svc-headless", ready_s=10, ttl_s=5)
    assert "minReadySeconds to 35" in complaint("user-svc-headless", ready_s=10, ttl_s=30)
    assert not complaint("user-svc-headless", ready_s=35, ttl_s=30)
