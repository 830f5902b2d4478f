"""What torchao and bitsandbytes say when they are imported, kept from the user. Imports neither."""

from __future__ import annotations

import logging

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
    """Keep what torchao and bitsandbytes say when they are imported from the user; each message of ``_NOISE`` alone.

    diffusers imports both, if they are installed, with its first model: call this before that.
    """
    for logger, beginning in _FILTERS.items():
        logging.getLogger(logger).addFilter(beginning)
