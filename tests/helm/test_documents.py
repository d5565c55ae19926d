"""The documents' kubectl and helm commands: each object, label and port exists in the chart, each flag in helm."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

import yaml

from devstack.settings import REPOSITORY
from envoy.environments import ADMIN_PORT
from tests.helm.chart import CHART, helm, manifests, pods
from tests.support.documents import code, commands

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.documents import Command

# All parts of the chart are in these shapes; the first has the default names of the Secrets.
SHAPES: Final = ("default", "limits", "production")
_KINDS: Final = {"deploy": "deployment", "svc": "service", "hpa": "horizontalpodautoscaler"}
_WITH_A_NAME: Final = {"deployment", "certificate", "secret", "job", "service", "configmap"}
_PLURALS: Final = {"pods": "pod", "certificates": "certificate", "secrets": "secret", "deployments": "deployment"}
# Made by the operator, as the chart's README says.
_MADE_BY_HAND: Final = {("secret", "shop-redis"), ("secret", "generic")}


@cache
def objects() -> set[tuple[str, str]]:
    """Return the kind and the name of all that the chart makes, or takes as a Secret."""
    every = [each for shape in SHAPES for each in manifests(shape)]
    made = {(each["kind"].lower(), each["metadata"]["name"]) for each in every}
    text = yaml.safe_dump_all(every)
    return made | {("secret", name) for name in re.findall(r"secretName: (\S+)", text)} | _MADE_BY_HAND


@cache
def labels() -> set[str]:
    """Return the labels of the chart's pods, as a selector has them."""
    return {
        f"{name}={value}"
        for shape in SHAPES
        for each in (*manifests(shape, "Deployment"), *manifests(shape, "Job"))
        for name, value in each["spec"]["template"]["metadata"]["labels"].items()
    }


def _named(command: Command) -> Iterator[tuple[str, str]]:
    """Yield the objects that a command of kubectl names: `deployment/edge`, `get certificate edge`."""
    words = command.words[: command.words.index("--")] if "--" in command.words else command.words
    for at, word in enumerate(words):
        kind, slash, name = word.partition("/")
        if slash and kind in _WITH_A_NAME | _KINDS.keys():
            yield _KINDS.get(kind, kind), name
        following = words[at + 1] if at + 1 < len(words) else "-"
        if word in _WITH_A_NAME and not following.startswith(("-", "<")) and words[at - 1] != "create":
            yield word, following


def test_every_object_that_kubectl_is_asked_for_is_the_chart_s() -> None:
    named = [(each.where, *found) for each in commands("kubectl") for found in _named(each)]

    assert len(named) > 20
    assert [each for each in named if each[1:] not in objects()] == []


def test_every_kind_that_kubectl_is_asked_for_is_one_of_the_chart_s() -> None:
    kinds = {kind for kind, _ in objects()}
    asked = [
        (each.where, each.words[2])
        for each in commands("kubectl")
        if each.words[1:2] in {("get",), ("describe",)} and len(each.words) > 2 and "/" not in each.words[2]
    ]

    assert asked
    assert [each for each in asked if _PLURALS.get(each[1], each[1]) not in kinds] == []


def test_every_label_that_selects_pods_is_theirs() -> None:
    asked = {
        (each.where, selector)
        for each in code()
        for selector in re.findall(r"(?:--selector[ =]|-l )([\w./-]+=[\w-]+)", each.text)
    }

    assert len(asked) > 4
    assert {each for each in asked if each[1] not in labels()} == set()


def test_every_port_that_is_forwarded_is_open() -> None:
    ports: dict[str, set[int]] = {"edge": {ADMIN_PORT}}  # on the pod's loopback, where forwarding arrives
    for name, pod in pods("production"):
        for container in pod["containers"]:
            ports.setdefault(name, set()).update(port["containerPort"] for port in container.get("ports", ()))
    asked = [each for each in commands("kubectl") if each.words[1:2] == ("port-forward",)]

    wrong = []
    for each in asked:
        kind, _, name = each.words[2].partition("/")
        assert kind == "deployment", each
        wrong += [(each.where, word) for word in each.words[3:] if int(word.rpartition(":")[2]) not in ports[name]]
    assert asked
    assert wrong == []


def test_every_flag_of_helm_exists() -> None:
    asked = [each for each in commands("helm") if len(each.words) > 1]
    wrong = []
    for each in asked:
        known = _flags(each.words[1])
        given = [word.partition("=")[0] for word in each.words if word.startswith("-")]
        wrong += [(each.where, each.words[1], flag) for flag in given if flag not in known]

    assert len(asked) > 5
    assert wrong == []


def test_no_command_needs_what_is_in_pods_alone() -> None:
    # redis-cli knows two of the six forms of REDIS_URL, and a file of the URL of a database is in pods only.
    assert not [each.where for each in code() if "redis-cli -u" in each.text and "REDIS_URL" in each.text]
    connecting = [each for each in code() if "psql" in each.text and ".data.DATABASE_URL" in each.text]
    assert [each for each in connecting if "/etc/shop/database/ca.crt" in each.text]


def test_the_logs_of_a_job_are_not_the_only_way_to_its_end() -> None:
    text = (REPOSITORY / "docs" / "runbook.md").read_text()

    for job in re.findall(r"kubectl logs\s+job/([\w-]+)", text):
        assert f"kubectl describe job {job}" in text


def test_every_way_back_works_beside_an_autoscaler() -> None:
    asked = [each for each in commands("helm") if each.words[1:3] == ("rollback", "shop")]

    assert len(asked) > 2
    assert [each.where for each in asked if "--force-conflicts" not in each.words] == []


def test_a_restore_on_kubernetes_migrates_between_the_dump_and_the_pods() -> None:
    [steps] = [
        each.text.splitlines()
        for each in code()
        if "kubectl scale --replicas=0" in each.text and "pg_restore" in each.text
    ]
    kinds = [next(kind for kind in _STEPS if step.startswith(kind)) for step in steps]

    assert [kind for at, kind in enumerate(kinds) if kind != kinds[at - 1]] == list(_STEPS)  # none of them comes again


_STEPS: Final = (
    "kubectl scale --replicas=0",
    "kubectl wait --for=delete",
    'psql "$SUPERUSER_URL" --command "SELECT pg_terminate_backend',
    "pg_restore",
    "helm upgrade",
    "kubectl scale",
)
"""The steps of a restore: a dump has the schema of its day, and a session keeps a database from being dropped."""


@cache
def _flags(subcommand: str) -> set[str]:
    done = helm(subcommand, "--help")
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"(?<![\w-])-{1,2}[a-z][\w-]*", done.stdout))


def test_every_release_is_installed_from_the_chart() -> None:
    installed = [
        each for each in commands("helm") if each.words[1:2] in {("upgrade",), ("install",)} and "shop" in each.words
    ]

    assert installed
    for each in installed:
        assert {str(CHART.relative_to(CHART.parents[1]))} & set(each.words) or any("://" in word for word in each.words)


def test_a_restart_for_a_new_password_restarts_every_pod_that_reads_it() -> None:
    having: dict[str, set[str]] = {}
    for each in manifests("production", "Deployment"):
        for name in _secrets_of(each):
            having.setdefault(name, set()).add(each["metadata"]["name"])
    recipes = [each.text for each in code() if "kubectl patch secret" in each.text and "rollout restart" in each.text]

    assert recipes
    for recipe in recipes:
        [secret] = re.findall(r"patch secret shop-(\S+)", recipe)
        restarted = set(re.findall(r"deployment/(\S+)", recipe))
        assert restarted == set().union(*(names for names in having.values() if secret in names))


def _secrets_of(part: object) -> Iterator[str]:
    """Yield the Secrets that a pod mounts, whole or key by key."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key == "secret" and isinstance(value, dict):
            yield value.get("secretName") or value["name"]
        yield from _secrets_of(value)
