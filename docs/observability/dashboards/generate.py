"""Makes the dashboards for Grafana: `python docs/observability/dashboards/generate.py`.

A panel is a title, a unit and queries; the rest of what Grafana wants is the same for all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
# Every selector has one of these: one Prometheus may watch several installations, each in a namespace of its own.
_ALL: Final = 'namespace="$namespace"'
_JOB: Final = f'{_ALL}, job="$job"'
_SHOP: Final = f'{_JOB}, rpc_method=~"shop[.].+"'
_EDGE: Final = f'{_ALL}, envoy_http_conn_manager_prefix="edge"'
_CLUSTERS: Final = f'{_ALL}, envoy_cluster_name=~".+_svc"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: what it shows.
        unit: Grafana's name of the unit.
        queries: legend → expression.
        red_above: where the threshold line is drawn, if anywhere.
        red_below: the same, where less is worse.
        has_examples: whether the traces of single calls are shown as dots.
    """

    title: str
    unit: str
    queries: dict[str, str] = field(default_factory=dict)
    red_above: float | None = None
    red_below: float | None = None
    has_examples: bool = False


def quantile(q: float, metric: str, labels: str, by: str = "") -> str:
    """Return the expression of a quantile of a histogram."""
    return (
        f"histogram_quantile({q}, sum by (le{by and ', ' + by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"
    )


def rate(metric: str, labels: str, by: str) -> str:
    """Return the expression of a rate, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def rates(metric: str, labels: str, by: str) -> dict[str, str]:
    """Return the query of a rate for each value of a label."""
    return {f"{{{{{by}}}}}": rate(metric, labels, by)}


def p95(metric: str, labels: str, by: str) -> dict[str, str]:
    """Return the query of a quantile of a histogram for each value of a label."""
    return {f"{{{{{by}}}}}": quantile(0.95, metric, labels, by)}


def percentiles(metric: str, labels: str) -> dict[str, str]:
    """Return the queries of three quantiles of a histogram."""
    return {f"p{q * 100:g}": quantile(q, metric, labels) for q in (0.5, 0.95, 0.99)}


def of_jobs(metric: str) -> dict[str, str]:
    """Return the query of the greatest value of each job."""
    return {"{{job}}": f"max by (job) ({metric}{{{_ALL}}})"}


_CALLS: Final = "rpc_server_call_duration_seconds"

SERVICE: Final = [
    Panel(
        "Failed calls: the service's fault",
        "percentunit",
        {
            "5 min": f"job:calls_failed:ratio_rate5m{{{_JOB}}}",
            "1 h": f"job:calls_failed:ratio_rate1h{{{_JOB}}}",
        },
        0.001,
    ),
    Panel(
        "Slow calls",
        "percentunit",
        {"5 min": f"job:calls_slow:ratio_rate5m{{{_JOB}}}", "1 h": f"job:calls_slow:ratio_rate1h{{{_JOB}}}"},
        0.01,
    ),
    Panel("Calls by method", "reqps", rates(f"{_CALLS}_count", _SHOP, "rpc_method")),
    Panel(
        "Calls by code, but for OK",
        "reqps",
        rates(f"{_CALLS}_count", f'{_SHOP}, rpc_response_status_code!="OK"', "rpc_response_status_code"),
    ),
    Panel("Duration", "s", percentiles(_CALLS, _SHOP), 0.25, has_examples=True),
    Panel("Duration by method, p95", "s", p95(_CALLS, _SHOP, "rpc_method")),
    Panel("Calls being served", "short", {"{{instance}}": f"sum by (instance) (shop_calls_active{{{_JOB}}})"}),
    Panel(
        "Streams",
        "short",
        {
            "{{instance}}": f"sum by (instance) (shop_streams_active{{{_JOB}}})",
            "{{rpc_response_status_code}}/s": rate("shop_streams_ended_total", _JOB, "rpc_response_status_code"),
        },
    ),
    Panel("Calls to other services, p95", "s", p95("rpc_client_call_duration_seconds", _JOB, "rpc_method")),
    Panel(
        "Breaker",
        "short",
        {
            "{{dependency}} {{state}} {{instance}}": f"shop_breaker_state{{{_JOB}}} == 1",
            "{{dependency}} rejects": rate("shop_breaker_rejections_total", _JOB, "dependency"),
        },
    ),
    Panel("Writes answered again", "reqps", rates("shop_idempotent_replays_total", _JOB, "rpc_method")),
    Panel(
        "Orders by status",
        "ops",
        {"{{from_status}} → {{to_status}}": rate("shop_order_status_changes_total", _ALL, "from_status, to_status")},
    ),
    Panel(
        "Password hashes",
        "s",
        {
            "p95": quantile(0.95, "shop_password_hash_duration_seconds", _JOB),
            "waiting": f"sum(shop_password_hashes_waiting{{{_ALL}}})",
        },
    ),
    Panel(
        "Event loop late, p99",
        "s",
        {"{{instance}}": quantile(0.99, "shop_event_loop_lag_seconds", _JOB, "instance")},
        0.1,
    ),
    Panel("CPU", "short", {"{{instance}}": f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval])"}),
    Panel(
        "Certificates: time left",
        "s",
        {"{{instance}} {{certificate}}": f"shop_certificate_expiration_timestamp_seconds{{{_JOB}}} - time()"},
        red_below=3 * 86400,
    ),
    Panel("Memory", "bytes", {"{{instance}}": f"process_resident_memory_bytes{{{_JOB}}}"}),
]
EDGE: Final = [
    Panel(
        "Failed requests",
        "percentunit",
        {
            "5 min": f"edge:requests_failed:ratio_rate5m{{{_ALL}}}",
            "1 h": f"edge:requests_failed:ratio_rate1h{{{_ALL}}}",
            "3 d": f"edge:requests_failed:ratio_rate3d{{{_ALL}}}",
        },
        0.001,
    ),
    Panel(
        "Requests by answer",
        "reqps",
        {"{{envoy_response_code_class}}xx": rate("envoy_http_downstream_rq_xx", _EDGE, "envoy_response_code_class")},
    ),
    Panel("Duration", "ms", percentiles("envoy_http_downstream_rq_time", _EDGE), 250),
    Panel(
        "Connections",
        "short",
        {
            "active": f"sum(envoy_http_downstream_cx_active{{{_EDGE}}})",
            "requests": f"sum(envoy_http_downstream_rq_active{{{_EDGE}}})",
        },
    ),
    Panel(
        "Rate limited",
        "reqps",
        {"refused": f"sum(rate(envoy_http_local_rate_limit_rate_limited{{{_ALL}}}[$__rate_interval]))"},
    ),
    Panel(
        "Overloaded: calls and tries that were refused",
        "reqps",
        rates("envoy_cluster_upstream_rq_active_overflow", _CLUSTERS, "envoy_cluster_name"),
    ),
    Panel("Healthy replicas", "short", {"{{envoy_cluster_name}}": f"envoy_cluster_membership_healthy{{{_CLUSTERS}}}"}),
    Panel(
        "Certificates: days left",
        "d",
        {"{{instance}}": f"envoy_server_days_until_first_cert_expiring{{{_ALL}}}"},
        red_below=3,
    ),
    Panel("Duration of services, p95", "ms", p95("envoy_cluster_upstream_rq_time", _CLUSTERS, "envoy_cluster_name")),
    Panel("Tries again", "reqps", rates("envoy_cluster_upstream_rq_retry", _CLUSTERS, "envoy_cluster_name")),
]
DATABASE: Final = [
    Panel(
        "Connections",
        "short",
        {
            "{{instance}} {{db_client_connection_state}}": f"db_client_connection_count{{{_JOB}}}",
            "{{instance}} max": f"db_client_connection_max{{{_JOB}}}",
        },
    ),
    Panel(
        "Work that waits for a connection",
        "short",
        {"{{instance}}": f"db_client_connection_pending_requests{{{_JOB}}}"},
        0,
    ),
    Panel("Statements, p95", "s", p95("db_client_operation_duration_seconds", _JOB, "db_query_summary")),
    Panel("Calls in a batch, p95", "short", p95("shop_batch_size", _JOB, "batch")),
    Panel("Batches", "ops", rates("shop_batch_size_count", _JOB, "batch")),
    Panel("Events that wait", "short", of_jobs("shop_outbox_unpublished_events")),
    Panel("Disk of the outbox", "bytes", of_jobs("shop_outbox_size_bytes")),
    Panel("Age of the oldest event", "s", of_jobs("shop_outbox_oldest_age_seconds"), 60),
    Panel(
        "Consumers behind",
        "s",
        {"{{job}} {{stream}}": f"max by (job, stream) (shop_consumer_behind_seconds{{{_ALL}}})"},
        60,
    ),
    Panel(
        "Events that are missing",
        "short",
        {
            "{{job}} dead letters": f"max by (job) (shop_dead_letters{{{_ALL}}})",
            "{{job}} lacks events": f"max by (job) (shop_consumer_lacks_events{{{_ALL}}})",
            "{{job}} is incomplete": f"max by (job) (shop_consumer_is_incomplete{{{_ALL}}})",
            "{{stream}} cut": rate("shop_stream_events_cut_total", _ALL, "stream"),
        },
        0,
    ),
]


def dashboard(uid: str, title: str, panels: list[Panel], *, chooses_job: bool) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it: two panels a row."""
    variables: list[dict[str, Any]] = [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
    variables.append(_variable("namespace", "label_values(shop_process_info, namespace)"))
    if chooses_job:
        variables.append(_variable("job", f"label_values(shop_process_info{{{_ALL}}}, job)"))
    return {
        "uid": uid,
        "title": title,
        "tags": ["shop"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables},
        "panels": [_panel(number, each) for number, each in enumerate(panels)],
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {"name": name, "type": "query", "datasource": _DATASOURCE, "query": query, "refresh": 2}


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.red_below}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries",
        "datasource": _DATASOURCE,
        "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
                "custom": {"thresholdsStyle": {"mode": "line" if len(steps) > 1 else "off"}},
            },
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": expression,
                "legendFormat": legend,
                **({"exemplar": True} if panel.has_examples else {}),
            }
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


DASHBOARDS: Final = {
    "service.json": dashboard("shop-service", "Shop: a service", SERVICE, chooses_job=True),
    "edge.json": dashboard("shop-edge", "Shop: the edge", EDGE, chooses_job=False),
    "database.json": dashboard("shop-database", "Shop: database and outbox", DATABASE, chooses_job=True),
}

if __name__ == "__main__":
    for name, content in DASHBOARDS.items():
        (HERE / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
