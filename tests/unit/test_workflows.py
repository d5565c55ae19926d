"""The workflows run nothing but what a commit names, and may no more than they need."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from chassis.service import services
from devstack.settings import REPOSITORY
from tests.support.documents import TRACKED

MAKEFILE = (REPOSITORY / "Makefile").read_text()
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_and_says_its_version(path: Any) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text())

    assert used
    for action, comment in used:
        if action.startswith("./"):  # of this commit
            continue
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_unless_a_job_needs_more(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values() if "steps" in job)


JOBS = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text())["jobs"]


def needed(job: str) -> set[str]:
    """Return the jobs that must have passed before a job of the release."""
    needs = JOBS[job].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*(needed(each) for each in direct))


def test_nothing_is_released_that_ci_has_not_passed() -> None:
    writing = {name for name, job in JOBS.items() if "write" in job.get("permissions", {}).values()}

    assert JOBS["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert writing == {"image", "index", "release"}
    assert all("ci" in needed(job) for job in writing)


def test_an_image_is_scanned_before_it_is_pushed_and_attested_after() -> None:
    steps = [step.get("uses", "").partition("@")[0] or step["run"] for step in JOBS["image"]["steps"]]

    [scan] = [at for at, step in enumerate(steps) if step == "aquasecurity/trivy-action"]
    [bill] = [at for at, step in enumerate(steps) if step == "anchore/sbom-action"]
    [push] = [at for at, step in enumerate(steps) if "docker push" in step]
    attested = [at for at, step in enumerate(steps) if step == "actions/attest"]
    assert scan < push
    assert bill < push < min(attested)
    assert JOBS["image"]["steps"][scan]["with"]["exit-code"] == "1"
    assert len(attested) == 2


def test_a_release_carries_what_make_dist_makes_attested_and_made_where_nothing_may_be_written() -> None:
    packages = JOBS["packages"]
    [upload] = [step for step in packages["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]
    steps = JOBS["release"]["steps"]
    [download] = [step for step in steps if step.get("uses", "").startswith("actions/download-artifact@")]
    [attest] = [step for step in steps if step.get("with", {}).get("subject-path")]
    [release] = [step for step in steps if "gh release create" in step.get("run", "")]

    assert {"run": "make dist"} in packages["steps"]
    assert "permissions" not in packages
    assert "packages" in JOBS["release"]["needs"]
    assert f"python -m protos.package {upload['with']['path']}\n" in MAKEFILE
    assert upload["with"]["include-hidden-files"]  # the folder's name begins with a dot
    assert download["with"] == {"name": upload["with"]["name"], "path": "dist"}
    assert attest["with"]["subject-path"] == "dist/*"
    assert release["run"].rstrip().endswith(" dist/*")
    assert steps.index(download) < steps.index(attest) < steps.index(release)


def test_each_service_has_an_image_that_is_built_scanned_and_released() -> None:
    names = subprocess.run(["make", "--silent", "image-names"], capture_output=True, cwd=REPOSITORY, check=True).stdout
    scanned = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["images"]

    assert set(json.loads(names)) == {"edge", *(service.host for service in services())}
    assert scanned["strategy"]["matrix"]["image"] == "${{ fromJSON(needs.image-names.outputs.names) }}"
    for job in ("image", "index"):
        assert JOBS[job]["strategy"]["matrix"]["image"] == "${{ fromJSON(needs.version.outputs.images) }}"
    assert {each["arch"] for each in JOBS["image"]["strategy"]["matrix"]["platform"]} == {"amd64", "arm64"}


def test_a_digest_that_is_read_from_the_registry_is_verified_before_it_is_used() -> None:
    readers = [
        step["run"]
        for job in JOBS.values()
        for step in job.get("steps", [])
        if "imagetools inspect" in step.get("run", "")
    ]

    assert len(readers) == 2
    for script in readers:
        used = min(at for word in ("imagetools create", "helm/package.py") if (at := script.find(word)) >= 0)
        assert 0 < script.find("gh attestation verify") < used


def test_every_pinned_version_is_matched_by_renovate() -> None:
    config = json.loads((REPOSITORY / "renovate.json").read_text())
    found: dict[str, set[str]] = {}
    for manager in config["customManagers"]:
        for path in TRACKED:
            if any(re.search(pattern.strip("/"), path) for pattern in manager["managerFilePatterns"]):
                for expression in manager["matchStrings"]:
                    matches = re.finditer(expression.replace("(?<", "(?P<"), (REPOSITORY / path).read_text())
                    names = {match.groupdict().get("depName") or manager["depNameTemplate"] for match in matches}
                    found.setdefault(path, set()).update(names)
    tools = set(re.findall(r"go (?:install|get) (\S+?)(?:/cmd\S*)?@v", MAKEFILE))

    assert found["Makefile"] == tools | {"kubernetes/kubernetes"}
    assert len(tools) == 5
    assert found[".github/workflows/ci.yml"] == {"debian"}
    assert found["docker/compose.yaml.j2"] == {"docker.io/library/postgres", "docker.io/library/redis"}
    for section, files in {
        "pip_requirements": [path for path in TRACKED if re.fullmatch(r"requirements/.*\.txt", path)],
        "docker-compose": [path for path in TRACKED if re.fullmatch(r"docker/compose.*\.yaml", path)],
        "dockerfile": [path for path in TRACKED if re.fullmatch(r"docker/[^/]*Dockerfile", path)],
    }.items():
        patterns = [pattern.strip("/") for pattern in config[section]["managerFilePatterns"]]
        assert files
        assert [path for path in files if not any(re.search(pattern, path) for pattern in patterns)] == []


def test_the_workflows_are_valid() -> None:
    actionlint = REPOSITORY / ".tools" / "actionlint"
    if not actionlint.exists():
        pytest.skip("actionlint is not there: `make actionlint` builds it where Go is")

    done = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
