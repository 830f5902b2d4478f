"""Keeps transformers and the Hub's client from writing into the terminal beside the progress display."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the libraries' chatter and bars, which would break up the progress display."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # the Hub's as well
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_bars and not bars:
            enable_progress_bars()
        elif bars and not hub_bars:
            disable_progress_bars()
