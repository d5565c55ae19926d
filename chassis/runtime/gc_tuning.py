"""How often Python looks for cycles of objects."""

from __future__ import annotations

import gc


def tune_gc() -> None:
    """Have Python look for cycles less often, and never among what is there already.

    By default it looks after 700 new objects, which is every hundred calls, and finds nothing: 10 % of an empty call.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # some 10 MB of cycles, if there were that many
