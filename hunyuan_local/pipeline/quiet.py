"""Keeps from the user what libraries say that nobody can act on. Imports none of them: a command begins with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

# What the libraries say when they are imported or called, by logger: none of it is for a user to act on.
_NOISE = {
    "torchao": "Failed to load ",  # compiled extensions for other devices
    "torch.utils._pytree": "<enum ",  # torchao registers enumerations in a way that torch has replaced
    "diffusers.quantizers.torchao.torchao_quantizer": "Unable to import `torchao` Tensor objects",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",  # at every product
}


class _Beginning(logging.Filter):
    """Drops the records of a logger whose message begins like this; its name is that beginning."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.name)


_FILTERS = {logger: _Beginning(beginning) for logger, beginning in _NOISE.items()}


def hide_import_noise() -> None:
    """Hide what torchao and bitsandbytes say when they are imported, each message of ``_NOISE`` alone.

    diffusers imports both, if they are installed, with its first model: call this before that.
    """
    for logger, beginning in _FILTERS.items():
        logging.getLogger(logger).addFilter(beginning)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the chatter and bars of transformers and the Hub's client, which would break up the progress display."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

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
