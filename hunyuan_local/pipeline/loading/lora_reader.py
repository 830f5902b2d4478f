"""Reads a LoRA file as changes of the transformer's layers."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError, safe_open

from ...config import LoraConfig
from ...weights.lora_fit import Layer, check_fit
from ...weights.lora_header import Header
from ...weights.lora_values import check_values
from .lora_layer import Changes, Group


def read_changes(config: LoraConfig, header: Header, layers: Mapping[str, Layer]) -> Changes:
    """Check a file against the transformer's layers and read it.

    Args:
        config: the LoRA's path and scale.
        header: the file's header.
        layers: the transformer's layers, by diffusers' names.

    Raises:
        ModelLoadError: see :func:`hunyuan_local.weights.lora_fit.check_fit`; or a value is NaN or infinite, or the
            file cannot be read.
    """
    changes = Changes(config, header, check_fit(config, header, layers))
    check_values(config, header, changes.fit)
    try:
        with safe_open(header.file, "pt") as opened:
            for part in changes.fit.parts:
                tensors = {kind: opened.get_tensor(key) for kind, key in part.keys.items()}
                Group(changes, part, tensors, layers).read()
    except (OSError, SafetensorError) as error:
        raise changes.fault(f"{header.file.name} cannot be read ({error}); download it again") from error
    if all(change.is_zero for change in (*changes.weights.values(), *changes.biases.values())):
        changes.notes.append(f"lora={config.path!r}: has no effect, because all its changes are zero")
    return changes
