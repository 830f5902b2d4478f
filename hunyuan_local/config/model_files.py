"""Identifies a single file that was given as a model, to explain why it cannot be used as one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from ..errors import ConfigError

FOLDER = "a model is a folder in diffusers format, a Hub id (owner/name), or one of the known names"
SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".yaml", ".yml")
_MOST_HEADER_BYTES = 100_000_000  # limit of the safetensors library
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def refuse_file(name: str, path: Path) -> None:
    """Raise an error that names the kind of a file given as a model, and where it belongs.

    Raises:
        ConfigError: always.
    """
    what, remedy = _what_is(path)
    raise ConfigError(f"model={name!r}: is {what}; {remedy}")


def _what_is(path: Path) -> tuple[str, str]:
    """The kind of a file, and where it belongs."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
            names = _tensor_names(file.read(_header_bytes(begin, path)))
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})", FOLDER
    if begin.startswith(b"GGUF"):
        return "a single GGUF file", (
            "name it as transformer_gguf in a model's YAML file, together with the model_id of the complete checkpoint"
        )
    if names is not None and any("lora" in key.lower() or "lokr_" in key or "hada_" in key for key in names):
        return "a single LoRA file", f"give it with --lora; {FOLDER}"
    if names is not None:
        return "a single safetensors file", (
            f"it has no configurations, tokenizers and text encoders; {FOLDER}; save_pretrained of diffusers writes "
            "such a folder"
        )
    if begin.startswith(_PICKLES):
        return "a single file in a pickle or archive format", f"only safetensors files are supported; {FOLDER}"
    return "a file, not a model", f"{FOLDER}, or a model's config as a .yaml file"


def _header_bytes(begin: bytes, path: Path) -> int:
    """Length of the JSON header of a safetensors file; 0 for other files."""
    if len(begin) < 8:
        return 0
    count: int = struct.unpack("<Q", begin)[0]
    return count if count <= min(_MOST_HEADER_BYTES, path.stat().st_size - 8) else 0


def _tensor_names(header: bytes) -> list[str] | None:
    """The tensor names in a safetensors header; None if it is invalid."""
    try:
        content = json.loads(header)
    except ValueError:
        return None
    return list(content) if isinstance(content, dict) else None
