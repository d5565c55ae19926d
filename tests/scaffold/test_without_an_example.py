"""An example is deleted, in a clone: only its own tests go with it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from chassis.service import ROOT, services
from devstack.scaffold import files

if TYPE_CHECKING:
    from tests.scaffold.clone import Clone

EXAMPLE = "order_svc"
OTHER = "user_svc"


def delete_example(clone: Clone) -> None:
    """Delete the files that are its alone and the stubs of its contract; let the other example read no events of it."""
    [service] = [each for each in services() if each.name == EXAMPLE]
    packages = {served.split(".")[1] for served in service.serves}
    paths = [path.relative_to(ROOT) for path in files.of_service(service)]
    for path in [clone.root / path for path in paths] + [clone.root / "generated/shop" / each for each in packages]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for stub in (clone.root / "generated/shop/event").rglob(f"{service.publishes}_events_pb2*"):
        stub.unlink()

    other = clone.root / OTHER
    (other / "consumer.py").unlink()
    declaration, worker = other / "service.toml", other / "worker.py"
    declaration.write_text(re.sub(r"^reads = .*\n", "", declaration.read_text(), flags=re.MULTILINE))
    text = worker.read_text().replace(f"from {OTHER} import consumer\n", "")
    worker.write_text(text.replace(", handle=consumer.handle", ""))


def test_the_tests_of_the_chassis_pass_without_the_example(clone: Clone) -> None:
    delete_example(clone)

    shown = clone.run(
        "pytest", "-q", "--numprocesses", "2", "--dist", "loadfile", "tests/unit/chassis", "tests/integration/chassis",
        timeout_s=1200,
    )  # fmt: skip

    assert int(re.findall(r"(\d+) passed", shown)[0]) > 1000
