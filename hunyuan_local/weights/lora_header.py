"""What a LoRA file says of itself, before any of its numbers is read: its metadata and the settings of its training.

Needs no torch, so a file that cannot be added is refused before a model is loaded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..config import LoraConfig
from ..errors import HunyuanLocalError, ModelLoadError
from .architecture import OURS, is_image_to_video, other_architecture
from .lora_keys import is_image_to_video as has_image_to_video_key
from .lora_keys import why_never_added
from .single_file import find_file

_SETTINGS = "lora_adapter_metadata"  # diffusers writes peft's settings into this field of the header
_PEFT_FILE, _PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_PEFT_PREFIX = "base_model.model."
# How files begin that are given for safetensors files.
_BEGINNINGS = {
    b"": "is empty",
    b"PK\x03\x04": "is a PyTorch file (.pt, .ckpt) or a zip archive; convert it to safetensors",
    b"\x80": "is a pickle (.pt, .bin, .ckpt); convert it to safetensors",
    b"GGUF": "is a GGUF file",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself; run 'git lfs pull', or fetch it again",
    b"<": "is a page of a web site, not the file itself; fetch it again, logged in where that is needed",
}


@dataclass(frozen=True)
class Settings:
    """Of the training, as peft has them.

    Attributes:
        source: where they are from, for errors.
        alpha: the scale of a change is ``alpha / rank``; None is not said.
        rank: None is not said.
        alpha_pattern: other values of ``alpha``, by a regular expression for the layer's name.
        use_rslora: the scale is ``alpha / sqrt(rank)``.
    """

    source: str = ""
    alpha: float | None = None
    rank: int | None = None
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    use_rslora: bool = False

    def scale(self, layers: Iterable[str], rank: int) -> float:
        """What multiplies a change of this rank; 1 where nothing is said. A layer may have several names."""
        names = list(layers)
        own = (
            value
            for pattern, value in self.alpha_pattern.items()
            if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)
        )
        alpha = next(own, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


@dataclass(frozen=True)
class Header:
    """Of one file: where it is, its keys with their shapes, the settings of its training, and notes for the user."""

    file: Path
    shapes: dict[str, tuple[int, ...]]
    settings: Settings
    notes: tuple[str, ...] = ()


def fault(config: LoraConfig, text: str) -> ModelLoadError:
    """An error of a LoRA, by the path that was given."""
    return ModelLoadError(f"lora={config.path!r}: {text}")


def read_header(config: LoraConfig) -> Header:
    """Find a LoRA file, here or on the Hub, and read what it says of itself.

    Raises:
        ConfigError: no such file, here or on the Hub.
        ModelLoadError: it cannot be fetched, is not a whole safetensors file, has metadata that cannot be read,
            names another architecture, or has a key of a kind that cannot be added.
    """
    file = find_file("lora", config.path, ".safetensors")
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        raise fault(config, _why_unreadable(file, error)) from error
    if not shapes:
        raise fault(config, f"{file.name} holds no tensors; use another file")
    _check_architecture(config, metadata)
    notes = []
    if key := next((key for key in shapes if has_image_to_video_key(key)), None):
        raise fault(config, f"{key} is a key of HunyuanVideo-I2V, image to video; use a LoRA made for {OURS}")
    for key in shapes:
        if (reason := why_never_added(key)) is not None:
            raise fault(config, f"{key} {reason}")
    if is_image_to_video(file.stem):
        notes.append(
            f"lora={config.path!r}: its name says image to video, and this model makes videos from text alone; the "
            "LoRA may not do what it was trained for"
        )
    settings = _settings(config, file, metadata, shapes)
    if settings.alpha is None and any(key.startswith(_PEFT_PREFIX) for key in shapes):
        notes.append(
            f"lora={config.path!r}: neither the file nor an {_PEFT_SETTINGS} with it says lora_alpha; it is taken to "
            "be the rank, which scales the change by 1"
        )
    return Header(file, shapes, settings, tuple(notes))


def _check_architecture(config: LoraConfig, metadata: Mapping[str, object], of: str = "its header") -> None:
    if (found := other_architecture(metadata)) is not None:
        raise fault(config, f"{of} says {found}, which is not {OURS}; use a LoRA made for HunyuanVideo")


def _why_unreadable(file: Path, error: Exception) -> str:
    start = f"{file.name} cannot be read as a safetensors file"
    try:
        with file.open("rb") as opened:
            beginning = opened.read(24)
    except OSError as problem:
        return f"{start}: {problem.strerror}; check its permissions"
    if beginning[8:9] == b"{":  # a safetensors file, whose header begins with its length
        return f"{start} ({error}); it is cut short or damaged: fetch it again"
    for begins, what in _BEGINNINGS.items():
        if beginning == b"" if not begins else beginning.startswith(begins):
            return f"{start}: it {what}"
    return f"{start} ({error}); it is cut short or damaged: fetch it again"


def _settings(config: LoraConfig, file: Path, metadata: Mapping[str, str], keys: Iterable[str]) -> Settings:
    """Those in the header, else those of the file that peft writes with its own."""
    if _SETTINGS in metadata:
        found = _as_object(config, f"the metadata {_SETTINGS}", metadata[_SETTINGS])
        # diffusers prefixes the name of the component.
        found = {name.removeprefix("transformer."): value for name, value in found.items()}
        return _checked(config, f"the metadata {_SETTINGS}", found)
    beside = _peft_settings(config, file, keys)
    if beside is None:
        return Settings()
    try:
        text = beside.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fault(config, f"{beside} cannot be read: {error}") from error
    found = _as_object(config, str(beside), text)
    _check_architecture(config, found, str(beside))
    if found.get("alpha") is not None:  # LoHa's and LoKr's name for it
        found.setdefault("lora_alpha", found["alpha"])
    return _checked(config, str(beside), found)


def _peft_settings(config: LoraConfig, file: Path, keys: Iterable[str]) -> Path | None:
    """Where peft's settings for its own file are, if they are anywhere."""
    beside = file.with_name(_PEFT_SETTINGS)
    if file.name != _PEFT_FILE or beside.is_file():
        return beside if file.name == _PEFT_FILE else None
    if Path(config.path).expanduser().is_file() or not any(key.startswith(_PEFT_PREFIX) for key in keys):
        return None
    try:
        return find_file("lora", config.path.removesuffix(_PEFT_FILE) + _PEFT_SETTINGS, ".json")
    except HunyuanLocalError:  # the note of a missing lora_alpha says it
        return None


def _as_object(config: LoraConfig, source: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise fault(config, f"{source} is not JSON ({error}): {text[:60]!r}; repair it or remove it") from error
    if not isinstance(found, dict):
        raise fault(config, f"{source} is {text[:60]!r} where a JSON object is needed; repair it or remove it")
    return found


def _checked(config: LoraConfig, source: str, found: Mapping[str, Any]) -> Settings:
    def wrong(name: str, needed: str) -> ModelLoadError:
        return fault(config, f"{source} says {name}={found[name]!r} where {needed} is needed; repair it or remove it")

    def number(name: str) -> float | None:
        value = found.get(name)
        if value is None or _is_number(value):
            return value
        raise wrong(name, "a number")

    patterns = found.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(_is_number(value) for value in patterns.values()):
        raise wrong("alpha_pattern", "an object of numbers")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise wrong("alpha_pattern", f"a regular expression for each layer ({pattern!r}: {error})") from error
    rslora = found.get("use_rslora") or False
    if not isinstance(rslora, bool):
        raise wrong("use_rslora", "true or false")
    rank = number("r")
    if rank is not None and (rank < 1 or rank != int(rank)):
        raise wrong("r", "a whole number from 1")
    return Settings(source, number("lora_alpha"), None if rank is None else int(rank), patterns, rslora)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
