"""Python that forgets this tree: for tests of another tree with the packages that are installed here."""

from __future__ import annotations

from typing import Final

OWN_STUBS: Final = """
import sys
sys.meta_path[:] = [each for each in sys.meta_path if "__editable__" not in getattr(each, "__module__", "")]
sys.path[:] = [each for each in sys.path if "__editable__" not in each]
"""
"""Python to run first. What is installed here has this tree on its path, with stubs that the other one may lack."""
