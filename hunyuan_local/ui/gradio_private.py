"""All uses of undocumented Gradio members, which an upgrade may change or remove.

Tested with Gradio 6.31; ``tests/test_private_members.py`` lists each member and fails if one is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio


def look_for_events_every(page: gradio.Blocks, seconds: float) -> None:
    """Set how often the page's queue checks for events; the default of 1 ms uses a tenth of a CPU core."""
    queue = page._queue
    queue.sleep_when_free = queue.progress_update_sleep_when_free = seconds
