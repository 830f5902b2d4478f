"""Reads the header of a LoRA file: its keys and shapes, its metadata and the training settings.

Works without torch, so that an unsupported file is refused before a model is loaded.
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
from .architecture import other_architecture, other_task, ours
from .lora_keys import is_image_to_video, why_never_added
from .single_file import find_file, sha256_of

_SETTINGS = "lora_adapter_metadata"  # header field in which diffusers stores peft's settings
_PEFT_FILE, _PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_PEFT_PREFIX = "base_model.model."
# First bytes of files that users mistake for safetensors files.
_BEGINNINGS = {
    b"": "is empty",
    b"PK\x03\x04": "is a PyTorch file (.pt, .ckpt) or a zip archive; convert it to safetensors",
    b"\x80": "is a pickle (.pt, .bin, .ckpt); convert it to safetensors",
    b"GGUF": "is a GGUF file",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; run 'git lfs pull', or download it again",
    b"<": "is a web page, not the file itself; download it again, logged in if necessary",
}


@dataclass(frozen=True)
class Settings:
    """Training settings, as in peft.

    Attributes:
        source: where the settings were found, for errors.
        alpha: the scale of an update is ``alpha / rank``; None if not specified.
        rank: None if not specified.
        alpha_pattern: values of ``alpha`` for specific layers, by a regular expression for the layer name.
        use_rslora: use the scale ``alpha / sqrt(rank)`` instead.
    """

    source: str = ""
    alpha: float | None = None
    rank: int | None = None
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    use_rslora: bool = False

    def scale(self, layers: Iterable[str], rank: int) -> float:
        """The scale of an update of this rank; 1 if no alpha is specified. ``layers`` are the names of one layer."""
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
    """The header of one file: path, shapes and types of the keys, training settings, and notes for the user.

    ``dtypes`` are those of safetensors, such as ``BF16``. ``settings_file`` is the file with the training settings, if
    they are not in the header.
    """

    file: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    settings: Settings
    notes: tuple[str, ...] = ()
    settings_file: Path | None = None

    def hashes(self, config: LoraConfig) -> dict[str, str]:
        """The SHA-256 of each file that determines the change, by its path as configured."""
        found = {config.path: sha256_of(self.file)}
        if self.settings_file is not None:
            found[_next_to(config)] = sha256_of(self.settings_file)
        return found


def fault(config: LoraConfig, text: str) -> ModelLoadError:
    """An error about a LoRA, with its path as the user gave it."""
    return ModelLoadError(f"lora={config.path!r}: {text}")


def read_header(config: LoraConfig, takes_image: bool = False) -> Header:
    """Find a LoRA file, locally or on the Hub, and read its header.

    Args:
        config: the LoRA's path and scale.
        takes_image: whether the model is image to video.

    Raises:
        ConfigError: no such file, locally or on the Hub.
        ModelLoadError: the file cannot be downloaded, is not a complete safetensors file, has invalid metadata, names
            a different architecture, or has a key of an unsupported kind.
    """
    file = find_file("lora", config.path, ".safetensors")
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - no dict
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
            dtypes = {key: part.get_dtype() for key, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise fault(config, _why_unreadable(file, error)) from error
    if not shapes:
        raise fault(config, f"{file.name} contains no tensors; use another file")
    _check_architecture(config, metadata, takes_image)
    notes = []
    if not takes_image and (key := next((key for key in shapes if is_image_to_video(key)), None)):
        raise fault(config, f"{key} is a key of HunyuanVideo-I2V, image to video; use a LoRA made for {ours(False)}")
    for key in shapes:
        if (reason := why_never_added(key)) is not None:
            raise fault(config, f"{key} {reason}")
    if (found := other_task(file.stem, takes_image)) is not None:
        notes.append(
            f"lora={config.path!r}: its name indicates {found}, but this model is {ours(takes_image)}; the LoRA may "
            "not work as trained"
        )
    settings_file = None if _SETTINGS in metadata else _peft_settings(config, file, shapes)
    settings = _settings(config, settings_file, metadata, takes_image)
    if settings.alpha is None and any(key.startswith(_PEFT_PREFIX) for key in shapes):
        notes.append(
            f"lora={config.path!r}: neither the file nor an {_PEFT_SETTINGS} next to it specifies lora_alpha; using "
            "the rank, which is a scale of 1"
        )
    return Header(file, shapes, dtypes, settings, tuple(notes), settings_file)


def _check_architecture(
    config: LoraConfig, metadata: Mapping[str, object], takes_image: bool, of: str = "its header"
) -> None:
    if (found := other_architecture(metadata, takes_image)) is not None:
        raise fault(config, f"{of} says {found}, which is not {ours(takes_image)}; use a LoRA made for HunyuanVideo")


def _why_unreadable(file: Path, error: Exception) -> str:
    start = f"{file.name} cannot be read as a safetensors file"
    try:
        with file.open("rb") as opened:
            beginning = opened.read(24)
    except OSError as problem:
        return f"{start}: {problem.strerror}; check its permissions"
    if beginning[8:9] == b"{":  # a safetensors file: 8 bytes of header length, then the header as JSON
        return f"{start} ({error}); it is truncated or damaged: download it again"
    for begins, what in _BEGINNINGS.items():
        if beginning == b"" if not begins else beginning.startswith(begins):
            return f"{start}: it {what}"
    return f"{start} ({error}); it is truncated or damaged: download it again"


def _settings(
    config: LoraConfig, settings_file: Path | None, metadata: Mapping[str, str], takes_image: bool
) -> Settings:
    """The settings in the header or, by default, in the settings file that peft writes next to its weights."""
    if _SETTINGS in metadata:
        found = _as_object(config, f"the metadata {_SETTINGS}", metadata[_SETTINGS])
        # diffusers prefixes the name of the component.
        found = {name.removeprefix("transformer."): value for name, value in found.items()}
        return _checked(config, f"the metadata {_SETTINGS}", found)
    if settings_file is None:
        return Settings()
    try:
        text = settings_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fault(config, f"{settings_file} cannot be read: {error}") from error
    found = _as_object(config, str(settings_file), text)
    _check_architecture(config, found, takes_image, str(settings_file))
    if found.get("alpha") is not None:  # the name of lora_alpha in LoHa and LoKr
        found.setdefault("lora_alpha", found["alpha"])
    return _checked(config, str(settings_file), found)


def _peft_settings(config: LoraConfig, file: Path, keys: Iterable[str]) -> Path | None:
    """The path of peft's settings file for its weights, if it exists."""
    settings_file = file.with_name(_PEFT_SETTINGS)
    if file.name != _PEFT_FILE or settings_file.is_file():
        return settings_file if file.name == _PEFT_FILE else None
    if Path(config.path).expanduser().is_file() or not any(key.startswith(_PEFT_PREFIX) for key in keys):
        return None
    try:
        return find_file("lora", _next_to(config), ".json")
    except HunyuanLocalError:  # covered by the note about a missing lora_alpha
        return None


def _next_to(config: LoraConfig) -> str:
    """The path of peft's settings file, in the form in which the LoRA's path is configured."""
    return config.path.removesuffix(_PEFT_FILE) + _PEFT_SETTINGS


def _as_object(config: LoraConfig, source: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise fault(config, f"{source} is not JSON ({error}): {text[:60]!r}; repair it or remove it") from error
    if not isinstance(found, dict):
        raise fault(config, f"{source} is {text[:60]!r}, but it must be a JSON object; repair it or remove it")
    return found


def _checked(config: LoraConfig, source: str, found: Mapping[str, Any]) -> Settings:
    def wrong(name: str, needed: str) -> ModelLoadError:
        return fault(config, f"{source} has {name}={found[name]!r}, but it must be {needed}; repair it or remove it")

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
        raise wrong("r", "an integer of 1 or more")
    return Settings(source, number("lora_alpha"), None if rank is None else int(rank), patterns, rslora)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
