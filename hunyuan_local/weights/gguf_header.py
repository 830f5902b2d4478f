"""What a GGUF file says of itself, before any of its weights is read. Needs the extra ``quant``; no torch."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError, ModelLoadError, first_line
from .architecture import OURS, is_image_to_video, is_known_other, is_this, other_architecture

_MAGIC = b"GGUF"
_ARCHITECTURE, _FIELDS = "general.architecture", ("general.architecture", "general.name", "general.basename")


def check_gguf_header(path: Path) -> list[str]:
    """Refuse a file that is not a GGUF file, or says that it is of another architecture; returns notes for the user.

    ``city96/HunyuanVideo-gguf`` says ``hyvid``. A value that names no architecture, as some converters write one, is
    noted.

    Raises:
        ConfigError: no file, or not a GGUF file.
        ModelLoadError: damaged, or of another architecture.
    """
    _check_is_gguf(path)
    start = f"transformer_gguf={str(path)!r}"
    fields = _read_fields(path)
    said = fields.get(_ARCHITECTURE)
    wrong = other_architecture({name: value for name, value in fields.items() if name != _ARCHITECTURE})
    if said is not None and is_known_other(said):
        wrong = f"{_ARCHITECTURE}={said!r}"
    if wrong is not None:
        raise ModelLoadError(
            f"{start}: its header says {wrong}, which is not {OURS}; use a GGUF file of HunyuanVideo's transformer, "
            "such as city96/HunyuanVideo-gguf/hunyuan-video-t2v-720p-Q4_K_M.gguf"
        )
    notes = []
    if said is not None and not is_this(said):
        notes.append(f"{start}: its header says {_ARCHITECTURE}={said!r}, from which it is not known what it is of")
    if is_image_to_video(path.stem):
        notes.append(f"{start}: its name says image to video, and this model makes videos from text alone")
    return notes


def _check_is_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(f"transformer_gguf={str(path)!r}: cannot be opened: {error.strerror}") from error
    if beginning != _MAGIC:
        raise ConfigError(
            f"transformer_gguf={str(path)!r}: is no GGUF file, which begins with the letters GGUF; use one, such as "
            "city96/HunyuanVideo-gguf/hunyuan-video-t2v-720p-Q4_K_M.gguf, or leave it out"
        )


def _read_fields(path: Path) -> dict[str, str]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        found = {name: reader.fields[name].contents() for name in _FIELDS if name in reader.fields}
    except Exception as error:  # damaged files raise whatever the reader raises
        raise ModelLoadError(f"{path}: cannot be read: {first_line(error)}; fetch it again, or use another") from error
    return {name: value for name, value in found.items() if isinstance(value, str)}
