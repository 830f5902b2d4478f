"""Hides library messages that a user cannot act on. Imports no library itself, since every command loads it first."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

# Messages to hide, by logger: they appear on import or at a call, and a user cannot act on them.
_NOISE = {
    "torchao": "Failed to load ",  # compiled extensions for other devices
    "torch.utils._pytree": "<enum ",  # torchao registers enums with an API that torch has replaced
    "diffusers.quantizers.torchao.torchao_quantizer": "Unable to import `torchao` Tensor objects",
    "transformers.utils.import_utils": "`CLIPImageProcessor` requires torchvision",  # we use the one on Pillow
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "bitsandbytes.autograd._functions": "MatMul8bitLt: inputs will be cast",  # at every matrix product
}


class _Beginning(logging.Filter):
    """Drops log records that start with the filter's name."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.name)


_FILTERS = {logger: _Beginning(beginning) for logger, beginning in _NOISE.items()}


def hide_import_noise() -> None:
    """Hide the messages of ``_NOISE`` that the libraries log on import.

    Call it before the first import of a diffusers model or pipeline.
    """
    for logger, beginning in _FILTERS.items():
        logging.getLogger(logger).addFilter(beginning)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide log messages and bars of transformers and the Hub's client, which would break the progress display."""
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
