"""Checks the files that a model config adds to its checkpoint, before the checkpoint is loaded or downloaded."""

from __future__ import annotations

from ..config import ModelConfig
from ..config.quantization import GGUF_NEEDS, installed_libraries
from ..weights.gguf_header import check_gguf_header
from ..weights.lora_fit import Layer, check_fit
from ..weights.lora_header import read_header
from ..weights.lora_values import check_values
from ..weights.single_file import find_file
from .checkpoint import read_transformer


def check_added_files(config: ModelConfig) -> None:
    """Refuse LoRA and GGUF files that are missing, damaged, or for a different model.

    Compares the keys and shapes of LoRAs with the layers that the model's configuration describes, and checks their
    values. Downloads Hub files that are not in the cache, but no weights of the model.

    Raises:
        ConfigError: no such file, locally or on the Hub; or no such model.
        ModelLoadError: a file cannot be downloaded, is damaged, or is for a different model.
    """
    headers = [(lora, read_header(lora, config.takes_image)) for lora in config.lora]
    if config.transformer_gguf is not None:
        file = find_file("transformer_gguf", config.transformer_gguf, ".gguf")
        if GGUF_NEEDS.library in installed_libraries():  # without the library, the profile is refused later
            check_gguf_header(file, config.takes_image)
    if headers:
        shapes = read_transformer(config).shapes()
        layers = {name: Layer(shape, has_bias) for name, (shape, has_bias) in shapes.items()}
        for lora, header in headers:
            check_values(lora, header, check_fit(lora, header, layers))
