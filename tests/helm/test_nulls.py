"""A value that is set to null: empty where the default is empty, else refused, so that no number becomes 0 by it."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest
import yaml

from tests.helm.chart import CHART, Json, helm, objects, values_file

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULTS: Final[Json] = yaml.safe_load((CHART / "values.yaml").read_text())
DEFAULTS["image"]["registry"] = "registry.example/shop"
SCHEMA: Final = jsonschema.Draft202012Validator(json.loads((CHART / "values.schema.json").read_text()))

# Null leaves them out, as their descriptions and docs/operations.md say.
LEFT_OUT: Final = {
    "requests",
    "limits",
    "securityContext",
    "containerSecurityContext",
    "behavior",
    "labels",
    "nodePorts",
}


def paths(values: Json, *before: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value, groups and their members."""
    for key, value in values.items():
        yield (*before, key)
        if isinstance(value, dict) and key not in LEFT_OUT:
            yield from paths(value, *before, key)


def at(path: tuple[str, ...]) -> Any:
    """Return the default."""
    value: Any = DEFAULTS
    for key in path:
        value = value[key]
    return value


def without(*removed: tuple[str, ...]) -> Json:
    """Return the defaults without these: Helm removes what an operator sets to null before it looks at the schema."""
    values = copy.deepcopy(DEFAULTS)
    for path in removed:
        group = values
        for key in path[:-1]:
            group = group[key]
        del group[path[-1]]
    return values


# Null leaves out a service, which templates/refusals.yaml explains; the values of one are those of the defaults.
PATHS: Final = [path for path in paths(DEFAULTS) if path[0] != "services"]
EMPTY: Final = [path for path in PATHS if at(path) in ("", [], {}) and path != ("image", "registry")]
FILLED: Final = [
    path for path in PATHS if path not in EMPTY and path[-1] not in LEFT_OUT and path != ("image", "registry")
]


def test_the_defaults_are_what_the_schema_wants() -> None:
    SCHEMA.validate(DEFAULTS)

    assert len(EMPTY) > 60
    assert len(FILLED) > 60


@pytest.mark.parametrize("path", FILLED, ids=".".join)
def test_null_instead_of_a_value_is_refused_and_names_it(path: tuple[str, ...]) -> None:
    with pytest.raises(jsonschema.ValidationError, match=rf"'{path[-1]}' is a required property"):
        SCHEMA.validate(without(path))


def test_null_instead_of_an_empty_value_changes_nothing() -> None:
    values: Json = {"image": {"registry": "registry.example/shop"}}
    for path in EMPTY:
        group = values
        for key in path[:-1]:
            group = group.setdefault(key, {})
        group[path[-1]] = None

    assert _rendered(values) == _rendered({"image": {"registry": "registry.example/shop"}})


@pytest.mark.parametrize(
    "path", [path[1:] for path in PATHS if path[0] == "serviceDefaults" and len(path) > 1], ids=".".join
)
def test_null_for_one_service_never_becomes_a_zero(path: tuple[str, ...]) -> None:
    values: Any = None
    for key in reversed(("services", "user-svc", *path)):
        values = {key: values}
    with values_file(yaml.safe_dump(values | {"image": {"registry": "registry.example/shop"}})) as file:
        done = helm("template", "shop", str(CHART), "--values", str(file))

    if done.returncode == 0:
        assert ": null" not in done.stdout
        assert "replicas: 0" not in done.stdout
    else:
        assert "nil pointer" not in done.stderr
        assert "error calling" not in done.stderr
        assert path[-1] in done.stderr


def _rendered(values: Json) -> list[Json]:
    with values_file(yaml.safe_dump(values)) as file:
        done = helm("template", "shop", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)
