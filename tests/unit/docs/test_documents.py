"""Everything that the documents name exists: commands, options, settings, metrics, log events, values, files, tests."""

from __future__ import annotations

import ast
import inspect
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import yaml
from opentelemetry.sdk import environment_variables as sdk_variables

from devstack import __main__ as devstack_main
from devstack.services import SERVICES
from devstack.settings import REPOSITORY
from docs.settings_page import commands_of
from envoy import __main__ as envoy_main
from tests.support.documents import DOCUMENTS, TRACKED, anchors, code, commands, links
from tests.support.service_settings import stack_variables, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


EVERYWHERE: Final = envoy_main._EVERYWHERE  # noqa: SLF001  the options, before argparse hides them
_MAKEFILE: Final = (REPOSITORY / "Makefile").read_text()
ENVOYS_EVENT: Final = "edge.request"
_OURS: Final = ("chassis/", "devstack/", "envoy/", *(f"{service.name}/" for service in SERVICES))
_LEVELS: Final = ("debug", "info", "warning", "error", "exception", "critical")
# Logs the events that are given to its `Failures`.
_PERIODIC: Final = "chassis/runtime/periodic.py"
# Made when something runs, for this machine alone.
_MADE: Final = (".bench/", ".build", ".devstack", ".tools/", ".venv", "docker/secrets", "node_modules")


@cache
def source(*, with_tests: bool = False) -> str:
    """Return all that runs or configures what runs."""
    apart = ("docs/", "third_party/", ".github", "CHANGELOG", *(() if with_tests else ("tests/",)))
    return "\n".join(
        (REPOSITORY / name).read_text()
        for name in TRACKED
        if name and not name.startswith(apart) and not name.endswith((".md", ".svg", ".binpb", ".txt"))
    )


def test_every_target_of_make_exists_with_its_variables() -> None:
    lines = re.findall(r"^([\w.-]+(?: [\w.-]+)*):(?!=)", _MAKEFILE, re.MULTILINE)
    targets = {name for line in lines for name in line.split()}
    known = set(re.findall(r"^(\w+) \??:?=|\$\(([A-Z]+)\)", _MAKEFILE, re.MULTILINE))
    asked = list(commands("make"))

    wrong = [(each.where, word) for each in asked for word in each.words[1:] if word not in targets]
    unknown = [(each.where, name) for each in asked for name in each.variables if name not in {*sum(known, ())}]

    assert len(asked) > 50
    assert wrong == []
    assert unknown == []


def test_every_command_of_a_service_exists_with_its_arguments() -> None:
    known = {service.name: commands_of(service.name) for service in SERVICES}
    wrong = []
    tried = 0
    for each in commands("python", "docker", "kubectl", "service"):
        package, words = _service_command(each.words)
        if package in known and words:
            tried += 1
            wrong += [(each.where, " ".join(words))] * (not _is_command(words, known[package]))

    assert tried > 15
    assert wrong == []


def _service_command(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the package and the command that it is given, by `python -m` or in a container."""
    if words[1:2] == ("-m",) and len(words) > 2:
        return words[2], words[3:]
    if "service" in words:
        at = words.index("service")
        named = [re.sub(r"-worker$", "", word.rpartition("/")[2]) for word in words[:at]]
        [package] = {name.replace("-", "_") for name in named} & {service.name for service in SERVICES} or {"user_svc"}
        return package, words[at + 1 :]
    return "", ()


def _is_command(words: tuple[str, ...], known: dict[str, Callable[..., Any]]) -> bool:
    for length in range(len(words), 0, -1):
        if run := known.get(" ".join(words[:length])):
            parameters = inspect.signature(run).parameters.values()
            options = {f"--{each.name}" for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
            given = {word.partition("=")[0] for word in words[length:] if word.startswith("--")}
            return given <= options
    return False


def test_every_other_module_that_is_run_exists_with_its_options() -> None:
    texts = {
        "envoy": inspect.getsource(envoy_main) + "".join(f'"--{name}"' for name in EVERYWHERE),
        "devstack": inspect.getsource(devstack_main),
    }
    wrong = []
    for each in commands("python"):
        if each.words[1:2] != ("-m",) or len(each.words) < 3:
            continue
        module = each.words[2].replace(".", "/")
        if not {f"{module}.py", f"{module}/__main__.py"} & set(TRACKED):
            wrong.append((each.where, each.words[2]))
        for word in each.words[3:]:
            option = word.partition("=")[0]
            if each.words[2] in texts and option.startswith("--") and option != "--help":
                names = {option.removeprefix("--"), option.removeprefix("--").replace("-", "_")}
                served = option in {f"--{service.name.replace('_', '-')}-ports" for service in SERVICES}
                if not served and not any(name in texts[each.words[2]] for name in names):
                    wrong.append((each.where, option))

    assert wrong == []


def test_every_service_of_compose_that_a_command_names_exists() -> None:
    files = [path for path in TRACKED if path.startswith("docker/compose") and path.endswith(".yaml")]
    known = {name for path in files for name in yaml.safe_load((REPOSITORY / path).read_text()).get("services", {})}
    wrong = []
    tried = 0
    for each in commands("docker"):
        if each.words[1:2] != ("compose",):
            continue
        tried += 1
        wrong += [(each.where, name) for name in _composed(each.words[2:]) if name not in known | {"$service"}]

    assert tried > 10
    assert wrong == []


_TAKES_ONE: Final = {"--file", "-f", "--tail", "--since", "--username", "--scale", "--timeout"}
_OF_ALL: Final = {"up", "ps", "logs", "stop", "start", "restart", "kill", "rm", "pull", "create"}


def _composed(words: tuple[str, ...]) -> list[str]:
    """Return the services that a command of compose names."""
    names = [word for at, word in enumerate(words) if not word.startswith("-") and words[at - 1] not in _TAKES_ONE]
    if not names:
        return []
    command, *rest = names
    return rest if command in _OF_ALL else rest[:1]


def test_every_setting_and_reason_that_is_named_exists() -> None:
    words = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", source()))
    in_tests = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", source(with_tests=True)))
    words |= {name for name in vars(sdk_variables) if name.isupper()} | set(variables()) | set(stack_variables())
    words |= {"COMPOSE_FILE", "SECRETS_DIR"}  # compose's own; where settings are read from
    wrong = {
        (each.where, name)
        for each in code()
        for name in re.findall(r"(?<![\w$<{-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_?(?:[A-Z0-9]|\*|…)(?!\w)", each.text)
        if "_" in name and name not in (in_tests if each.where.startswith("tests/") else words)
        if not _is_prefix(name, words)
    }

    assert wrong == set()


def _is_prefix(name: str, words: set[str]) -> bool:
    return name[-1] in "*…" and any(word.startswith(name[:-1]) for word in words)


def test_every_metric_that_is_named_is_in_the_list() -> None:
    listed = set(re.findall(r"`(\w+)`", (REPOSITORY / "docs" / "observability.md").read_text()))
    wrong = {
        (each.where, name)
        for each in code()
        for name in re.findall(r"\b(?:shop|envoy_(?:http|cluster|server))_\w+", each.text)
        if "_" in name and not {name, re.sub(r"_(bucket|count|sum)$", "", name)} & listed
        if name not in source()
    }

    assert wrong == set()


@cache
def logged() -> set[str]:
    """Return the names of the events that services log."""
    return set(_logged())


def _logged() -> Iterator[str]:
    for path in TRACKED:
        if path.endswith(".py") and path.startswith(_OURS):
            for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
                if not isinstance(node, ast.Call):
                    continue
                if ast.unparse(node.func) == "Failures":
                    yield from (word.value.value for word in node.keywords if _is_event(word))
                elif ast.unparse(node.func) in {f"log.{level}" for level in _LEVELS} and path != _PERIODIC:
                    yield from _names(node.args[0], path)


def _is_event(word: ast.keyword) -> bool:
    return word.arg in {"failed", "recovered"} and isinstance(word.value, ast.Constant) and word.value.value is not None


def _names(argument: ast.expr, path: str) -> list[str]:
    """Return the events that one call can log: its text, or if it has a variable, all that the module has left over."""
    if isinstance(argument, ast.Constant):
        return [str(argument.value)]
    texts = re.findall(r'return "([a-z_]+\.[a-z_]+)"', (REPOSITORY / path).read_text())
    assert texts, f"{path}:{argument.lineno}: which events does this log?"
    return texts


def test_the_runbook_lists_every_event_that_is_logged_once_and_no_other() -> None:
    text = (REPOSITORY / "docs" / "runbook.md").read_text()
    rows = re.findall(r"^\| (`[^|]*)\|", text.partition("## Logs")[2].partition("\n## ")[0], re.MULTILINE)
    listed = sorted(name for row in rows for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", row))

    assert len(listed) > 30
    assert listed == sorted(logged() | {ENVOYS_EVENT})


def test_every_event_that_an_operator_reads_of_is_logged() -> None:
    events = logged() | {ENVOYS_EVENT}
    kinds = {name.partition(".")[0] for name in events}
    wrong = {
        (each.where, name)
        for each in code()
        for name in re.findall(r"^([a-z_]+\.[a-z_]+)$", each.text)
        if name.partition(".")[0] in kinds and name not in events and f'"{name}"' not in source()
        if each.where.startswith(("docs/runbook", "docs/observability", "docs/operations"))
    }

    assert wrong == set()


def test_every_value_of_the_chart_that_is_named_exists() -> None:
    values = yaml.safe_load((REPOSITORY / "helm" / "shop" / "values.yaml").read_text())
    roots = set(values) | set(values["serviceDefaults"])
    wrong = {
        (each.where, name)
        for each in code()
        for name in re.findall(r"^([a-zA-Z]+(?:\.[a-zA-Z]+)+)(?:=.*)?$", each.text)
        if name.partition(".")[0] in roots and not name.endswith((".yaml", ".py"))
        if not _has(values, name)
        and not _has(values["serviceDefaults"], name)
        and name not in {ENVOYS_EVENT, *logged()}
    }

    assert wrong == set()


def _has(values: Any, path: str) -> bool:
    for key in path.split("."):
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    wrong = []
    for path, target in links():
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            wrong.append((str(path.relative_to(REPOSITORY)), target))

    assert wrong == []


def test_every_file_that_is_named_exists() -> None:
    folders = {name.partition("/")[0] for name in TRACKED}
    suites = {path.name for path in (REPOSITORY / "tests").iterdir() if path.is_dir()}
    endings = r"(?:py|md|ya?ml|proto|sql|lua|j2|toml|sh|tpl|in|txt|json)"
    wrong = set()
    for each in code():
        for name in re.findall(
            rf"(?<![\w/.$<~…-])(?:[\w.-]+/)+[\w.-]*(?![\w(*…<])|(?<![\w/.$<>*…-])[\w.-]+\.{endings}\b(?![\w(*…])",
            re.sub(r" > \S+", "", each.text),  # what a command writes
        ):
            first = name.partition("/")[0]
            if name.startswith(_MADE) or "stock" in name or ("/" in name and first not in folders | suites):
                continue
            if not _is_file(name.rstrip("/"), REPOSITORY / each.where.partition(":")[0]):
                wrong.add((each.where, name))

    assert wrong == set()


def _is_file(name: str, document: Path) -> bool:
    if (document.parent / name).exists() or (REPOSITORY / name).exists():
        return True
    return any(f"/{path}".endswith((f"/{name}", f"/{name}.py")) or f"/{name}/" in f"/{path}" for path in TRACKED)


def test_every_test_that_security_names_exists() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    wrong = []
    named = re.findall(
        r"((?:unit|integration|e2e|containers|helm)/(?:\w+/)*test_\w+)((?:: )?(?:`\w+…?`(?:, )?)*)", text
    )
    for file, tests in named:
        path = REPOSITORY / "tests" / f"{file}.py"
        content = path.read_text() if path.exists() else ""
        wrong += [(file, name) for name in re.findall(r"`(\w+)…?`", tests) if f"def test_{name}" not in content]
        wrong += [(file, "")] * (not content)

    assert len(named) > 30
    assert wrong == []


def test_every_path_of_the_api_that_is_named_is_served() -> None:
    served = list(json.loads((REPOSITORY / "generated" / "openapi.json").read_text())["paths"])
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/:]+", path)) for path in served]
    edge = set(re.findall(r"(?:path|prefix|exact): \"?(/[\w.-]+)", (REPOSITORY / "envoy" / "edge.yaml.j2").read_text()))
    wrong = {
        (each.where, path)
        for each in code()
        for path in re.findall(r"(?<![\w*}])/(?:api/v1|health\w*)[\w/:.{}-]*", each.text)
        if not any(pattern.fullmatch(path) for pattern in patterns)
        if path not in edge | {"/health/stock"}
        and not any(other.startswith(f"{path.rstrip('/')}/") for other in served)
    }

    assert wrong == set()


def test_every_port_that_is_named_is_one_of_ours() -> None:
    known = set(re.findall(r"\b\d{2,5}\b", source()))
    wrong = {
        (each.where, port)
        for each in code()
        for port in re.findall(r"(?<=[\w.>]):(\d{4,5})(?![\w:-])", each.text)
        if port not in known
    }

    assert wrong == set()


def test_every_document_is_read() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/runbook.md", "helm/shop/README.md"} <= {
        str(path.relative_to(REPOSITORY)) for path in DOCUMENTS
    }
