"""Finds NaN and infinite values in a LoRA file without torch, so that no weights are loaded for a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..config import LoraConfig
from .lora_fit import Fit
from .lora_header import Header, fault

# Bits that are all set in a value that is NaN or infinite, by the types of safetensors; F8_E4M3 has no infinity.
_SPECIAL = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
_CHUNK = 1 << 22  # values at a time, which bounds the memory


def check_values(config: LoraConfig, header: Header, fit: Fit) -> None:
    """Check all values that change the transformer. Reads the file once, at the speed of the disk.

    Raises:
        ModelLoadError: a value is NaN or infinite; names the key.
    """
    try:
        content, places = _places(header.file)
        for key in (key for part in fit.parts for key in part.keys.values()):
            if header.dtypes[key] in _SPECIAL and _has_special(content, places[key], header.dtypes[key]):
                raise fault(config, f"{key} has values that are NaN or infinite; the file is damaged")
    except (OSError, ValueError) as error:
        raise fault(config, f"{header.file.name} cannot be read ({error}); download it again") from error


def _places(file: Path) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """The file's tensors as bytes, and the first and last position of each key.

    A safetensors file is a length in 8 bytes, that many bytes of JSON, and the tensors.
    """
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    if file.stat().st_size == 8 + size:  # no values, of which numpy makes no map
        return np.empty(0, np.uint8), {key: (0, 0) for key in header}
    places = {key: tuple(entry["data_offsets"]) for key, entry in header.items() if key != "__metadata__"}
    return np.memmap(file, np.uint8, "r", offset=8 + size), places


def _has_special(content: np.ndarray, place: tuple[int, int], dtype: str) -> bool:
    kind, bits = _SPECIAL[dtype]
    values, mask = content[slice(*place)].view(kind), kind(bits)
    return any(bool(((values[start : start + _CHUNK] & mask) == mask).any()) for start in range(0, len(values), _CHUNK))
