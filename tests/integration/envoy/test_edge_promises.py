"""Promises to callers that only a number or a name in the edge's configuration keeps.

Bounds, not values: a number may change as long as what it is there for stays true.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from chassis.server.method_wrapper import MAX_LISTS_WAITING
from chassis.server.settings import ServerSettings
from envoy.edge import SERVED_BY
from tests.integration.envoy.test_edge_config import (
    CONTRACT,
    ENVIRONMENTS,
    configuration,
    connection_manager,
    http_filter,
    routes,
)
from user_svc.keys import KeySettings

if TYPE_CHECKING:
    from envoy.contract import Contract
    from envoy.edge import Edge

EDGES = pytest.mark.parametrize("edge", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
# The contract's limit, in the edge as well as in the services.
LARGEST_BODY = 10 * 2**20


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def calls(edge: Edge) -> list[Any]:
    """Return the routes on which services are called by gRPC."""
    return [each for each in routes(edge) if "retry_policy" in each.get("route", {})]


def service_clusters(edge: Edge) -> list[Any]:
    clusters = configuration(edge)["static_resources"]["clusters"]
    return [each for each in clusters if each["name"].removesuffix("_streams") in SERVED_BY]


def names_of_reads(contract: Contract) -> set[str]:
    return {binding.rpc for binding in contract.bindings if binding.verb == "GET"}


def could_be(match: Any, path: str) -> bool:
    """Return whether a route's match takes the path, whatever it says about headers."""
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    return bool(path == match.get("path") or path.startswith(match.get("prefix", "\0")))


@EDGES
def test_a_call_that_reached_no_replica_is_tried_again_at_another_one(edge: Edge) -> None:
    assert calls(edge)
    for route in calls(edge):
        policy = route["route"]["retry_policy"]
        reasons = set(policy["retry_on"].split(","))

        assert {"connect-failure", "refused-stream"} <= reasons
        assert reasons & {"reset", "reset-before-request"}
        assert policy["num_retries"] >= 1
        assert [each["name"] for each in policy["retry_host_predicate"]] == [
            "envoy.retry_host_predicates.previous_hosts"
        ]
        # LEAST_REQUEST offers the dead replica, which has no calls, again and again.
        assert policy["host_selection_retry_max_attempts"] >= 10


@EDGES
def test_only_a_read_is_tried_again_after_it_has_reached_a_replica(edge: Edge) -> None:
    writes = {binding.rpc for binding in CONTRACT.bindings} - names_of_reads(CONTRACT)
    assert writes

    for route in calls(edge):
        if "reset" in route["route"]["retry_policy"]["retry_on"].split(","):
            assert not [path for path in writes if could_be(route["match"], path)]


@EDGES
def test_every_read_is_tried_again_when_its_replica_dies(edge: Edge) -> None:
    for path in names_of_reads(CONTRACT):
        first = next((each for each in calls(edge) if could_be(each["match"], path)), None)

        if first is not None and "headers" not in first["match"]:
            assert "reset" in first["route"]["retry_policy"]["retry_on"].split(",")


@EDGES
def test_reads_are_sent_to_a_second_replica_after_a_second_and_nothing_else_is(edge: Edge) -> None:
    others = ({binding.rpc for binding in CONTRACT.bindings} - names_of_reads(CONTRACT)) | {
        binding.rpc for binding in CONTRACT.bindings if binding.is_stream
    }

    for route in calls(edge):
        if "hedge_policy" in route["route"]:
            assert route["route"]["hedge_policy"] == {"hedge_on_per_try_timeout": True}
            assert seconds(route["route"]["retry_policy"]["per_try_timeout"]) <= 1
            assert not [path for path in others if could_be(route["match"], path)]
        else:
            assert "per_try_timeout" not in route["route"]["retry_policy"]
            assert not [path for path in names_of_reads(CONTRACT) - others if could_be(route["match"], path)]


@EDGES
def test_only_a_call_with_one_answer_is_timed_out_by_the_edge(edge: Edge) -> None:
    # A stream's status has been sent by then: Envoy could only reset it, and callers would be told INTERNAL.
    streams = {f"/{service}/{method}" for service in CONTRACT.services for method in CONTRACT.streams(service)}

    for route in calls(edge):
        match, limits = route["match"], route["route"]["max_stream_duration"]
        is_stream = match.get("path") in streams or match.get("prefix") == "/grpc.reflection."
        assert ("grpc_timeout_header_max" in limits) is not is_stream, match


@EDGES
def test_every_filter_precedes_the_filters_that_depend_on_it(edge: Edge) -> None:
    called_by_pages = connection_manager(replace(edge, cors_origins=("https://shop.example",)))
    names = [each["name"].removeprefix("envoy.filters.http.") for each in called_by_pages["http_filters"]]
    order = ["header_mutation", "health_check", "cors", "grpc_web", "local_ratelimit", "jwt_authn"]
    order += ["buffer", "lua", "grpc_json_transcoder", "router"]

    assert [name for name in names if name in order] == order
    assert names[-1] == "router"


@EDGES
def test_the_edge_knows_a_key_before_the_services_sign_with_it(edge: Edge) -> None:
    [provider] = http_filter(edge, "envoy.filters.http.jwt_authn")["providers"].values()
    lead_s = KeySettings(secret=SecretStr("x" * 43 + "=")).publish_lead_s

    # Twice: one fetch may fail, and a caller may come with the key at once.
    assert 2 * seconds(provider["remote_jwks"]["cache_duration"]) <= lead_s
    assert provider["require_expiration"] is True
    assert provider["clock_skew_seconds"] <= 5


@EDGES
def test_a_stopping_replica_is_taken_out_before_it_stops(edge: Edge) -> None:
    drain_s = ServerSettings().drain_s

    assert service_clusters(edge)
    for cluster in service_clusters(edge):
        [check] = cluster["health_checks"]
        for interval in ("interval", "no_traffic_interval"):
            # It says NOT_SERVING for that long; the answer takes a moment to come.
            assert 2 * seconds(check[interval]) < drain_s
        assert seconds(check["unhealthy_interval"]) <= seconds(check["interval"])
        assert seconds(check["timeout"]) * check["unhealthy_threshold"] < drain_s
        assert check["healthy_threshold"] == 1


@EDGES
def test_no_replica_is_set_aside_for_being_late(edge: Edge) -> None:
    for cluster in service_clusters(edge):
        # To it a late read is a refused connection. Calls move without it (test_busy_replicas.py).
        assert "outlier_detection" not in cluster


@EDGES
def test_calls_that_wait_are_bounded_and_streams_by_the_connections(edge: Edge) -> None:
    for cluster in service_clusters(edge):
        is_streams = cluster["name"].endswith("_streams")

        for threshold in cluster["circuit_breakers"]["thresholds"]:
            assert threshold["max_requests"] <= (10000 if is_streams else 1024)
            assert threshold["max_pending_requests"] <= 1024
            assert threshold["max_connections"] <= 1024
            # Half of the calls meet the one of two replicas that dies; a retry is also a call.
            assert threshold["max_requests"] / 2 <= threshold["max_retries"] or is_streams
            assert threshold["max_retries"] <= 1024


@EDGES
def test_lists_that_wait_are_the_work_of_a_second_and_each_of_them_may_be_tried_again(edge: Edge) -> None:
    for cluster in service_clusters(edge):
        thresholds = {each.get("priority", "DEFAULT"): each for each in cluster["circuit_breakers"]["thresholds"]}
        if cluster["name"].endswith("_streams"):
            assert thresholds.keys() == {"DEFAULT"}
            continue
        of_lists = thresholds["HIGH"]

        # For one replica what may wait there is a second of work; after a second the edge asks another one too.
        assert MAX_LISTS_WAITING <= of_lists["max_requests"] < 2 * MAX_LISTS_WAITING
        assert of_lists["max_pending_requests"] <= of_lists["max_requests"]
        # Lists that are late have had their try again when others wait for a connection in vain.
        assert of_lists["max_requests"] + of_lists["max_pending_requests"] <= of_lists["max_retries"]


@EDGES
def test_lists_have_limits_of_their_own_and_nothing_else_has(edge: Edge) -> None:
    lists = {f"/{service}/{method}" for service in CONTRACT.services for method in CONTRACT.lists(service)}
    assert lists
    assert lists < {binding.rpc for binding in CONTRACT.bindings}

    for route in calls(edge):
        is_of_lists = any(could_be(route["match"], path) for path in lists)
        assert route["route"].get("priority", "DEFAULT") == ("HIGH" if is_of_lists else "DEFAULT")


@EDGES
def test_the_bytes_of_one_connection_are_bounded(edge: Edge) -> None:
    manager = connection_manager(edge)
    http2 = manager["http2_protocol_options"]

    assert http_filter(edge, "envoy.filters.http.buffer")["max_request_bytes"] <= LARGEST_BODY
    assert manager["common_http_protocol_options"]["max_headers_count"] <= 100
    assert manager["common_http_protocol_options"]["headers_with_underscores_action"] == "REJECT_REQUEST"
    assert http2["max_concurrent_streams"] <= 100
    assert http2["initial_connection_window_size"] <= 2**20
    for listener in configuration(edge)["static_resources"]["listeners"]:
        if listener["name"].startswith("edge"):
            assert listener["per_connection_buffer_limit_bytes"] <= 2**20


@EDGES
def test_load_is_shed_before_the_kernel_kills_the_edge_for_its_memory(edge: Edge) -> None:
    overload = configuration(edge)["overload_manager"]
    heap = next(each for each in overload["resource_monitors"] if "heap" in each["name"])
    thresholds = {
        each["name"].rpartition(".")[2]: trigger["threshold"]["value"]
        for each in overload["actions"]
        for trigger in each["triggers"]
        if "threshold" in trigger and "heap" in trigger["name"]
    }

    # Images give the container 1.5 GiB; the rest is the renderer's and what the monitor does not count.
    assert heap["typed_config"]["max_heap_size_bytes"] <= 2**30
    assert thresholds["shrink_heap"] < thresholds["stop_accepting_requests"] < thresholds["stop_accepting_connections"]
    assert thresholds["stop_accepting_connections"] < 1


@pytest.mark.parametrize("environment", ["compose", "kubernetes"])
def test_tls_is_at_least_1_2_on_both_sides(environment: str) -> None:
    text = str(configuration(ENVIRONMENTS[environment]))
    contexts = text.count("DownstreamTlsContext") + text.count("UpstreamTlsContext")

    assert contexts
    assert "TLSv1_0" not in text
    assert "TLSv1_1" not in text
    assert text.count("'tls_minimum_protocol_version': 'TLSv1_2'") + text.count("TLSv1_3") == contexts


@EDGES
def test_malformed_messages_are_refused_and_not_dropped(edge: Edge) -> None:
    transcoder = http_filter(edge, "envoy.filters.http.grpc_json_transcoder")

    assert all(transcoder["request_validation_options"].values())
    assert {"reject_unknown_method", "reject_unknown_query_parameters"} <= set(transcoder["request_validation_options"])
    assert transcoder["max_request_body_size"] <= LARGEST_BODY
    assert transcoder["convert_grpc_status"] is True


@EDGES
def test_the_rate_limit_is_enforced_on_every_caller_with_a_time_to_retry(edge: Edge) -> None:
    limit = http_filter(edge, "envoy.filters.http.local_ratelimit")

    for part in ("filter_enabled", "filter_enforced"):
        assert limit[part]["default_value"] == {"numerator": 100, "denominator": "HUNDRED"}
    assert limit["rate_limited_as_resource_exhausted"] is True
    assert limit["max_dynamic_descriptors"] >= 10000
