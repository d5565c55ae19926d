"""Builds the client wheel: the stubs, and the modules of the chassis that a client can import.

The rest of the project's configuration is in pyproject.toml.
"""

from __future__ import annotations

from typing import Final

from setuptools import setup
from setuptools.command.build_py import build_py

# They need nothing but the `dependencies` of pyproject.toml; the other modules of these packages are for services.
CLIENT_MODULES: Final = {
    "chassis": {"__init__", "context"},
    "chassis.client": {"__init__", "channel", "errors", "hedging", "interceptors", "policy"},
}


class ClientModules(build_py):
    """Takes the modules of `CLIENT_MODULES` from these packages, and every module from all others."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return the modules of the package as (package, module, path)."""
        modules: list[tuple[str, str, str]] = super().find_package_modules(package, package_dir)
        return [each for each in modules if each[1] in CLIENT_MODULES.get(package, {each[1]})]


setup(cmdclass={"build_py": ClientModules})
