from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidFields
from chassis.server.conversions import set_timestamp, struct_to_dict

json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
# In minutes, as offsets come: FromDatetime, the measure here, is wrong about fractions of a second.
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def a_struct(values: dict[str, object]) -> Struct:
    struct = Struct()
    json_format.ParseDict(values, struct)
    return struct


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_a_struct_becomes_the_json_it_came_from(values: dict[str, object]) -> None:
    assert struct_to_dict(a_struct(values), field="f") == values


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1.0, "1"),
        (-3.0, "-3"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (2.0**53 - 1, "9007199254740991"),
        (2.0**53, "9007199254740992.0"),
        (1e300, "1e+300"),
    ],
)
def test_a_whole_number_is_written_without_a_fraction(number: float, expected: str) -> None:
    assert json.dumps(struct_to_dict(a_struct({"n": number}), field="f")["n"]) == expected


def test_a_bool_stays_a_bool() -> None:
    assert struct_to_dict(a_struct({"yes": True, "no": False}), field="f") == {"yes": True, "no": False}
    assert struct_to_dict(a_struct({"yes": True}), field="f")["yes"] is True


@pytest.mark.parametrize(
    "value",
    [
        Value(),
        Value(list_value=ListValue(values=[Value(bool_value=True), Value()])),
        Value(struct_value=Struct(fields={"inner": Value()})),
        Value(struct_value=Struct(fields={"inner": Value(list_value=ListValue(values=[Value()]))})),
    ],
    ids=["direct", "in a list", "in an object", "deeper"],
)
def test_a_value_without_a_kind_is_refused_under_the_name_of_the_field(value: Value) -> None:
    with pytest.raises(InvalidFields) as refused:
        struct_to_dict(Struct(fields={"a": value}), field="settings")

    assert [(each.field, each.rule) for each in refused.value.violations] == [("settings", "struct.kind")]


def test_a_null_is_null() -> None:
    assert struct_to_dict(a_struct({"a": None, "b": [None]}), field="f") == {"a": None, "b": [None]}


@given(st.datetimes(timezones=offsets, min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001  zones are drawn
def test_a_timestamp_is_exact_to_the_microsecond(moment: datetime) -> None:
    field, expected = Timestamp(), Timestamp()
    expected.FromDatetime(moment)

    set_timestamp(field, moment)

    assert field == expected


@pytest.mark.parametrize(
    ("moment", "seconds", "nanos"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0, 0),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1, 999_999_000),
        (datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC), -1, 1000),
        (datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC), 1_772_366_400, 999_999_000),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 253_402_300_799, 999_999_000),
    ],
)
def test_nanos_count_forward_also_before_1970(moment: datetime, seconds: int, nanos: int) -> None:
    field = Timestamp()

    set_timestamp(field, moment)

    assert (field.seconds, field.nanos) == (seconds, nanos)
