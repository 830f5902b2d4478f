"""Keeps Python's garbage collector out of the way of torch, diffusers and transformers.

Their import creates a million objects that stay. The collector scans them repeatedly while they are created, and again
at each full collection and at the end of the process: together half the CPU time of a short run. Imports no library
itself, since every command loads it first.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

_LIBRARIES = frozenset({"torch", "diffusers", "transformers"})


class _Process:
    """What this process is, known once it has started."""

    is_program = False


def skip_libraries_in_collections() -> None:
    """Call this at the start of a program: collections then skip what exists when a library has been imported.

    Not for a Python process of a user, whose other objects the collector would skip too.
    """
    _Process.is_program = True


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """No collections inside. Enclose the imports of modules that may be the first to import a library."""
    before = _LIBRARIES & sys.modules.keys()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        if _Process.is_program and _LIBRARIES & sys.modules.keys() != before:
            gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
