"""Packages the chart of a release: its images by registry and digest, its alerts with the address of the runbook.

    python helm/package.py --version 1.2.3 --registry ghcr.io/owner/shop --docs https://…/docs \
        --digest user-svc=sha256:… --digest order-svc=sha256:… --digest edge=sha256:…

Prints the path of the package, in .build/chart.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
IMAGES: Final = ("edge", *sorted(file.parent.name.replace("_", "-") for file in REPOSITORY.glob("*/service.toml")))
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--docs", required=True, help="where the documents of this version are")
    parser.add_argument("--digest", action="append", default=[], help="image=sha256:…, for each image")
    given = parser.parse_args()
    digests = dict(each.split("=", 1) for each in given.digest)
    if sorted(digests) != sorted(IMAGES) or not all(map(_DIGEST.fullmatch, digests.values())):
        sys.exit(f"--digest: name each of {', '.join(IMAGES)} once, as <image>=sha256:<64 hexadecimal digits>")
    folder = REPOSITORY / ".build" / "chart"
    shutil.rmtree(folder, ignore_errors=True)
    chart = shutil.copytree(REPOSITORY / "helm" / "shop", folder / "shop")
    values = (chart / "values.yaml").read_text()
    values = _replaced(values, '  registry: ""', f"  registry: {given.registry}")
    values = _replaced(values, "  digests: {}", f"  digests: {{{', '.join(f'{n}: {d}' for n, d in digests.items())}}}")
    values = _replaced(values, "https://shop.example/docs/", f"{given.docs.rstrip('/')}/")
    (chart / "values.yaml").write_text(values)
    helm = shutil.which("helm", path=f"{REPOSITORY / '.tools'}:{REPOSITORY}") or "helm"
    flags = ["--version", given.version, "--app-version", given.version, "--destination", str(folder)]
    subprocess.run([helm, "package", str(chart), *flags], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  ours
    print(folder / f"shop-{given.version}.tgz")  # noqa: T201  the answer


def _replaced(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        sys.exit(f"values.yaml has {text.count(old)} of {old!r} instead of 1")
    return text.replace(old, new)


if __name__ == "__main__":
    main()
