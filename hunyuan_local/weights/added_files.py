"""Checks the files that a model config adds to its checkpoint, before the checkpoint is loaded or downloaded."""

from __future__ import annotations

from ..config import ModelConfig
from ..config.quantization import GGUF_NEEDS, installed_libraries
from .gguf_header import check_gguf_header
from .lora_header import read_header
from .single_file import find_file


def check_added_files(config: ModelConfig) -> None:
    """Refuse LoRA and GGUF files that are missing, damaged, or for a different architecture.

    Downloads Hub files that are not in the cache.

    Raises:
        ConfigError: no such file, locally or on the Hub.
        ModelLoadError: a file cannot be downloaded, is damaged, or is for a different architecture.
    """
    for lora in config.lora:
        read_header(lora)
    if config.transformer_gguf is not None:
        file = find_file("transformer_gguf", config.transformer_gguf, ".gguf")
        if GGUF_NEEDS.library in installed_libraries():  # without the library, the profile is refused later
            check_gguf_header(file)
