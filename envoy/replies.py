"""How Envoy recognises which of its own answers gets which of the errors in errors.py, and to which callers it goes.

Under overload most answers are refusals, and Envoy evaluates the filters of error after error until one matches.
Comparing a number or a header takes nanoseconds, an expression in CEL microseconds. So each filter begins with the
status, and its expression is evaluated only for answers with this status.
"""

from collections.abc import Mapping
from typing import Final

from envoy.errors import EdgeError

Filter = Mapping[str, object]
"""An `AccessLogFilter` of Envoy."""

_GRPC: Final[Filter] = {
    "header_filter": {
        "header": {"name": "content-type", "string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}}
    }
}


def over_rest(error: EdgeError) -> Filter:
    """Return the filter for answers that are this error, for callers over REST."""
    return _all_of(*_is(error))


def over_grpc(error: EdgeError, *, is_web: bool) -> Filter:
    """Return the filter for answers that are this error, for callers over gRPC or, with `is_web`, gRPC-Web."""
    # A REST call is gRPC too once it is transcoded; only such a call has an original path.
    was_sent_so = _has("x-envoy-original-path", is_expected=False)
    return _all_of(*_is(error), _GRPC, was_sent_so, _has("x-grpc-web", is_expected=is_web))


def _is(error: EdgeError) -> tuple[Filter, ...]:
    statuses = _any_of(*(_all_of(*_within(each)) for each in error.statuses))
    return (statuses, _cel(error.condition)) if error.condition else (statuses,)


def _within(statuses: range) -> tuple[Filter, ...]:
    if len(statuses) == 1:
        return (_compares("EQ", statuses[0]),)
    return (_compares("GE", statuses[0]), _compares("LE", statuses[-1]))


def _compares(operator: str, status: int) -> Filter:
    # Envoy requires a key, with which its runtime could set another number. Nothing sets it.
    value = {"default_value": status, "runtime_key": f"edge.status_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _has(header: str, *, is_expected: bool) -> Filter:
    return {"header_filter": {"header": {"name": header, "present_match": True, "invert_match": not is_expected}}}


def _cel(expression: str) -> Filter:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    config = {"@type": kind, "expression": expression}
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}}


def _all_of(*filters: Filter) -> Filter:
    return filters[0] if len(filters) == 1 else {"and_filter": {"filters": list(filters)}}


def _any_of(*filters: Filter) -> Filter:
    return filters[0] if len(filters) == 1 else {"or_filter": {"filters": list(filters)}}
