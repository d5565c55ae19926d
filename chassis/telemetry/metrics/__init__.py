"""Metrics: what this process counts and measures, for Prometheus to fetch.

Names are OpenTelemetry's where its conventions have one, in the form that Prometheus gives them; our own begin with
`shop_`. docs/observability.md lists each metric with its labels and its maximum number of series; a test compares the
two. Metrics belong to the process, because a process runs one service.

The modules of this package hold the metrics by subject. Callers use their functions and never a metric itself. This one
has what they share: the registry, buckets and labels.
"""

from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics

# Without this each counter and histogram has a further series with its creation time, which no rule or panel uses.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types half of itself

# Not prometheus_client's default registry, to which any library may add metrics.
REGISTRY: Final = CollectorRegistry()

# Buckets for the duration of calls and statements. A lookup takes 1 to 5 ms, the SLO is 250 ms, the longest call 30 s.
# The conventions' own buckets begin at 5 ms, which would put every good call into the first one.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

SERVER_LABELS: Final = ("server_address", "server_port")
