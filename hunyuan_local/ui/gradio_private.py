"""What is used of Gradio that it does not document, in one place: an upgrade may take it away or change it.

Tried with 6.31; ``tests/test_private_members.py`` names each member, and fails by its name when it is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio


def look_for_events_every(page: gradio.Blocks, seconds: float) -> None:
    """How often a page's queue looks for events: by default every 1 ms, which takes a tenth of a core."""
    queue = page._queue
    queue.sleep_when_free = queue.progress_update_sleep_when_free = seconds
