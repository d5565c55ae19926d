"""The page of settings has every variable and option with its default, and none that is not read."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

import pytest

from chassis.service import services
from chassis.settings import Section, constants
from devstack.settings import REPOSITORY
from docs import settings_page
from docs.settings_page import NONE, Incomplete, shown
from envoy.__main__ import _EVERYWHERE
from envoy.edge import Edge
from envoy.environments import kubernetes
from tests.support.documents import TRACKED
from tests.support.service_settings import stack_variables, variables

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

_PAGE: Final = (REPOSITORY / "docs" / "settings.md").read_text()
# How the page names the user service: it says "every service" if there is no other one.
_ONE: Final = "user_svc" if len(services()) > 1 else "every service"
_TEMPLATE: Final = (settings_page.DOCS / "settings.tpl.md").read_text()


def _table(heading: str) -> dict[str, str]:
    """Return the variables below the headings of settings.md that match, with their defaults."""
    found: dict[str, str] = {}
    for part in _PAGE.split("\n## ")[1:]:
        if re.match(heading, part):
            for names, default in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", part, re.MULTILINE):
                each = re.findall(r"`([\w-]+)`", names)
                defaults = default.split(", ") if default.count(", ") == len(each) - 1 else [default] * len(each)
                found |= dict(zip(each, (text.strip("` ") for text in defaults), strict=True))
    return found


def _default(field: FieldInfo) -> str:
    return NONE if field.is_required() else shown(field.default)


@pytest.mark.parametrize("name", ["settings.md", "limits.md"])
def test_the_pages_are_what_the_fields_say(name: str, tmp_path: Path) -> None:
    settings_page.main(tmp_path)

    assert (tmp_path / name).read_text() == (settings_page.DOCS / name).read_text(), "run `make generate`"


def test_every_constant_is_among_the_limits() -> None:
    rows = re.findall(r"^\| `([A-Z_0-9]+)` \| ", (settings_page.DOCS / "limits.md").read_text(), re.MULTILINE)

    assert rows == [name for section in settings_page.sections().values() for name in constants(section)]


def test_every_setting_of_the_services_has_a_row() -> None:
    rows = re.findall(r"^\| `([A-Z_0-9]+)` \| .+ \| .+ \| .+\. \|$", _PAGE, re.MULTILINE)

    assert len(rows) == len(variables()) > 25
    assert set(rows) == set(variables())


@pytest.mark.parametrize(
    ("section", "readers"),
    [
        ("RelaySettings", "every service: `worker`"),
        ("ConsumerSettings", "every service: `worker`"),
        ("WatchSettings", "order_svc: `serve`"),
        ("PasswordRuleSettings", f"{_ONE}: `serve`, `admin create`"),
        ("BrokerSettings", "every service: `worker`"),  # services that read events repeat dead letters with it
    ],
)
def test_each_table_says_which_processes_read_it(section: str, readers: str) -> None:
    names = settings_page.variables(settings_page.sections()[section])

    [said] = re.findall(rf"Read by ([^\n]+)\.\n\n[^\n]+\n[^\n]+\n\| `{next(iter(names))}`", _PAGE)

    assert said.startswith(readers)


def test_a_section_that_the_template_lacks_is_missed() -> None:
    with pytest.raises(Incomplete, match="RelaySettings"):
        settings_page.settings(_TEMPLATE.replace("{{ RelaySettings }}", ""))


def test_a_field_without_a_reason_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    class RelaySettings(Section, env_prefix="RELAY_"):
        batch: int = 500

    known = settings_page.sections() | {"RelaySettings": RelaySettings}
    monkeypatch.setattr(settings_page, "sections", lambda: known)
    monkeypatch.setattr(settings_page, "_readers", lambda: dict.fromkeys(known, "all"))

    with pytest.raises(Incomplete, match="RELAY_BATCH has no docstring"):
        settings_page.settings(_TEMPLATE)


def test_every_setting_of_the_stack_is_documented_with_its_default() -> None:
    known = {name: _default(field) for name, field in stack_variables().items()}
    expected = {name: default for name, default in known.items() if not name.startswith("DATABASE_URL_")}

    assert _table("`make run`") == expected | {"SHOP_HOME": ".devstack"}


def test_every_variable_of_compose_is_documented_with_its_default() -> None:
    composed = [path for path in TRACKED if path.startswith("docker/compose") and path.endswith(".yaml")]
    files = "\n".join((REPOSITORY / path).read_text() for path in composed)
    expected = dict(re.findall(r"\$\{(\w+):-([^}@]+)", files))

    listed = _table("Compose")
    assert listed.keys() == expected.keys()
    assert {name for name, default in listed.items() if default not in {expected[name], "pinned"}} == set()


def test_every_option_of_the_edge_is_documented_with_its_default() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Edge)}
    defaults["address"] = kubernetes().address
    expected = {name: shown(defaults[name]) for name in _EVERYWHERE}

    assert _table("The edge") == {f"--{name.replace('_', '-')}": text for name, text in expected.items()} | {
        "--hsts": "off",
        "--concurrency": "2",
    }
