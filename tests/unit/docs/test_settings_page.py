"""The page of settings has every variable and option with its default, and none that is not read."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY
from envoy.__main__ import _EVERYWHERE
from envoy.environments import kubernetes
from envoy.render import Edge
from tests.support.documents import TRACKED
from tests.support.service_settings import stack_variables, variables

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_NONE: Final = "\N{EN DASH}"


def _table(heading: str) -> dict[str, str]:
    """Return the variables below the headings of settings.md that match, with their defaults."""
    found: dict[str, str] = {}
    for part in (REPOSITORY / "docs" / "settings.md").read_text().split("\n## ")[1:]:
        if re.match(heading, part):
            for names, default in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", part, re.MULTILINE):
                each = re.findall(r"`([\w-]+)`", names)
                defaults = default.split(", ") if default.count(", ") == len(each) - 1 else [default] * len(each)
                found |= dict(zip(each, (text.strip("` ") for text in defaults), strict=True))
    return found


def _default(field: FieldInfo) -> str:
    return _NONE if field.is_required() else _shown(field.default)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        default = ",".join(default)
    return _NONE if default in {None, ""} else str(default)


def test_every_setting_of_the_services_is_documented_with_its_default() -> None:
    listed = _table("Every|The database|Logs|user_svc|order_svc|Relays") | {"SERVICE_NAME": _NONE}
    expected = {name: _default(field) for name, field in variables().items()} | {"SERVICE_NAME": _NONE}

    assert listed == expected


def test_every_setting_of_the_stack_is_documented_with_its_default() -> None:
    expected = {name: _default(field) for name, field in stack_variables().items()}

    assert _table("`make run`") == expected | {"SHOP_HOME": ".devstack"}


def test_every_variable_of_compose_is_documented_with_its_default() -> None:
    files = "\n".join((REPOSITORY / path).read_text() for path in TRACKED if path.startswith("docker/compose"))
    expected = dict(re.findall(r"\$\{(\w+):-([^}@]+)", files))

    listed = _table("Compose")
    assert listed.keys() == expected.keys()
    assert {name for name, default in listed.items() if default not in {expected[name], "pinned"}} == set()


def test_every_option_of_the_edge_is_documented_with_its_default() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Edge)}
    defaults["address"] = kubernetes().address
    expected = {name: _shown(defaults[name]) for name in _EVERYWHERE}

    assert _table("The edge") == {f"--{name.replace('_', '-')}": text for name, text in expected.items()} | {
        "--hsts": "off",
        "--concurrency": "2",
    }
