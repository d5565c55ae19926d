"""A Chromium that is installed on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a running browser; skip the test if there is none on this machine."""
    paths = [path for name in _NAMES if (path := shutil.which(name))]
    if not paths:
        pytest.skip("there is no Chromium on this machine: on Debian, apt-get install chromium")
    # Chromium's own sandbox refuses root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=paths[0], args=arguments)
        yield browser
        browser.close()
