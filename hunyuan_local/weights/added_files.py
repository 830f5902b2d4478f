"""The files that a model's config adds to its checkpoint, checked before the checkpoint is loaded or fetched."""

from __future__ import annotations

from ..config import ModelConfig
from ..config.quantization import GGUF_NEEDS, installed_libraries
from .gguf_header import check_gguf_header
from .lora_header import read_header
from .single_file import find_file


def check_added_files(config: ModelConfig) -> None:
    """Refuse LoRA and GGUF files that are not there, are damaged, or say that they are of another architecture.

    A file of the Hub that is not in its cache is fetched.

    Raises:
        ConfigError: no such file, here or on the Hub.
        ModelLoadError: it cannot be fetched, is damaged, or is of another architecture.
    """
    for lora in config.lora:
        read_header(lora)
    if config.transformer_gguf is not None:
        file = find_file("transformer_gguf", config.transformer_gguf, ".gguf")
        if GGUF_NEEDS.library in installed_libraries():  # without it the profile is refused
            check_gguf_header(file)
