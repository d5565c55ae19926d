"""The OpenAPI document keeps its word: what it says is what the running system answers."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from devstack.settings import REPOSITORY
from tests.e2e.contract import BINDINGS, name_of
from tests.e2e.world import request_json

if TYPE_CHECKING:
    from tests.e2e.callers import Edge
    from tests.e2e.contract import Binding, Json
    from tests.e2e.world import World

DOCUMENT: Final[Json] = json.loads((REPOSITORY / "generated" / "openapi.json").read_text())

# Calls that schemathesis makes up for each operation. Together with the calls that follow from the document, 10 make
# some 1,300 and 600 some 5,000. `make test-fuzz` takes 40.
EXAMPLES: Final = os.environ.get("OPENAPI_EXAMPLES", "10")

STREAMS: Final = [binding.template for binding in BINDINGS if binding.rpc.is_stream]

NOT_PROMISED: Final = (
    "unsupported_method",  # a verb that is not there is 404 and not 405
    "use_after_free",  # a deleted user stays, without anything personal
    "positive_data_acceptance",  # the state of the system can refuse a valid request with 400
    "negative_data_rejection",  # JSON of protobuf has several spellings for one value
)


def closed(schema: Any) -> Any:
    """Return the schema, refusing the fields that it does not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(each) for name, each in schema.items()}
    return {"additionalProperties": False, **inner} if "properties" in inner and "type" in inner else inner


CLOSED: Final = {**copy.deepcopy(DOCUMENT), "components": closed(DOCUMENT["components"])}


def mistakes(body: Any, *, at: list[str]) -> list[str]:
    """Return where the body differs from the schema at a place of the document."""
    place = "/".join(each.replace("~", "~0").replace("/", "~1") for each in at)
    schema = {**CLOSED, "$ref": f"#/{place}"}
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


def answer(binding: Binding, status: int) -> list[str]:
    path = ["paths", binding.template, binding.verb.lower()]
    kind = "text/event-stream" if binding.rpc.is_stream and status == 200 else "application/json"
    return [*path, "responses", str(status), "content", kind, "schema"]


@pytest.mark.parametrize("binding", BINDINGS, ids=name_of)
def test_every_answer_is_as_the_document_says(world: World, binding: Binding) -> None:
    request = request_json(world.request(binding.rpc.name))

    outcome = world.edge.rest(binding.call(request))

    assert outcome.http
    assert mistakes(outcome.body, at=answer(binding, outcome.http)) == []


@pytest.mark.parametrize("binding", [each for each in BINDINGS if each.has_body], ids=name_of)
def test_every_body_that_is_accepted_is_one_that_the_document_allows(world: World, binding: Binding) -> None:
    call = binding.call(request_json(world.request(binding.rpc.name)))

    at = ["paths", binding.template, binding.verb.lower(), "requestBody", "content", "application/json", "schema"]
    assert mistakes(call.body, at=at) == []


@pytest.mark.parametrize("binding", [each for each in BINDINGS if each.template.count("{id}")], ids=name_of)
def test_every_refusal_is_as_the_document_says(world: World, binding: Binding) -> None:
    request = request_json(world.request(binding.rpc.name))

    outcome = world.edge.rest(binding.call({**request, "id": "junk"}))

    assert outcome.http == 400
    assert mistakes(outcome.body, at=answer(binding, 400)) == []
    operation = DOCUMENT["paths"][binding.template][binding.verb.lower()]
    assert outcome.reason[1] in operation["responses"]["400"]["content"]["application/json"]["examples"]


def test_the_edge_serves_the_document(edge: Edge) -> None:
    response = edge.http.get("/openapi.json")

    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT


@pytest.mark.parametrize("header", ["cq&: x", "!4Yw9`o: x", "%: x", "tilde~pipe|caret^: x"])
def test_a_header_name_that_grpc_does_not_allow_is_dropped(edge: Edge, header: str) -> None:
    name, _, value = header.partition(": ")

    response = edge.http.get("/health", headers={name: value})

    assert response.status_code == 200, response.text


@pytest.mark.timeout(900)
def test_generated_calls_get_documented_answers(edge: Edge, tmp_path: Path) -> None:
    har = tmp_path / "calls.har"
    schemathesis = Path(sys.executable).with_name("schemathesis")
    arguments = ["--url", edge.url, "--max-examples", EXAMPLES, "--exclude-checks", ",".join(NOT_PROMISED)]
    arguments += ["--workers", "2", "--seed", "1", "--continue-on-failure", "--no-color"]
    arguments += ["--header", f"Authorization: Bearer {edge.token}"]
    # It would wait for the end of a stream.
    arguments += [each for path in STREAMS for each in ("--exclude-path", path)]
    arguments += ["--report", "har", "--report-har-path", str(har)]

    run = subprocess.run(
        [schemathesis, "run", REPOSITORY / "generated" / "openapi.json", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    answers = [entry["response"]["status"] for entry in json.loads(har.read_text())["log"]["entries"]]
    print(f"{len(answers)} calls:", dict(sorted(Counter(answers).items())))  # noqa: T201 - shown by -rP
    assert run.returncode == 0, run.stdout[-20_000:]
    assert len(answers) >= 1000
    assert max(answers) < 500
