"""Checks the header of a GGUF file before its weights are read. Requires the ``quant`` extra, but not torch."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError, ModelLoadError, first_line
from .architecture import is_known_other, is_this, other_architecture, other_task, ours

_MAGIC = b"GGUF"
# Published files, for error messages: by whether the model is image to video.
_EXAMPLES = {
    False: "city96/HunyuanVideo-gguf/hunyuan-video-t2v-720p-Q4_K_M.gguf",
    True: "city96/HunyuanVideo-I2V-gguf/hunyuan-video-i2v-720p-Q4_K_M.gguf",
}
_ARCHITECTURE, _FIELDS = "general.architecture", ("general.architecture", "general.name", "general.basename")


def check_gguf_header(path: Path, takes_image: bool = False) -> list[str]:
    """Refuse a file that is not a GGUF file or is for a different architecture; returns notes for the user.

    ``takes_image`` is whether the model is image to video.

    ``city96/HunyuanVideo-gguf`` has the architecture ``hyvid``. An unknown value, as some converters write, gives a
    note.

    Raises:
        ConfigError: the file does not exist, or is not a GGUF file.
        ModelLoadError: the file is damaged, or for a different architecture.
    """
    _check_is_gguf(path, _EXAMPLES[takes_image])
    start = f"transformer_gguf={str(path)!r}"
    fields = _read_fields(path)
    said = fields.get(_ARCHITECTURE)
    wrong = other_architecture({name: value for name, value in fields.items() if name != _ARCHITECTURE}, takes_image)
    if said is not None and is_known_other(said, takes_image):
        wrong = f"{_ARCHITECTURE}={said!r}"
    if wrong is not None:
        raise ModelLoadError(
            f"{start}: its header says {wrong}, which is not {ours(takes_image)}; use a GGUF file of "
            f"HunyuanVideo's transformer, such as {_EXAMPLES[takes_image]}"
        )
    notes = []
    if said is not None and not is_this(said, takes_image):
        notes.append(f"{start}: its header says {_ARCHITECTURE}={said!r}, which is not a known architecture")
    if (found := other_task(path.stem, takes_image)) is not None:
        notes.append(f"{start}: its name indicates {found}, but this model is {ours(takes_image)}")
    return notes


def _check_is_gguf(path: Path, example: str) -> None:
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_MAGIC))
    except OSError as error:
        raise ConfigError(f"transformer_gguf={str(path)!r}: cannot be opened: {error.strerror}") from error
    if beginning != _MAGIC:
        raise ConfigError(
            f"transformer_gguf={str(path)!r}: not a GGUF file, which starts with the letters GGUF; use one, such as "
            f"{example}, or omit it"
        )


def _read_fields(path: Path) -> dict[str, str]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        found = {name: reader.fields[name].contents() for name in _FIELDS if name in reader.fields}
    except Exception as error:  # the reader raises various errors for damaged files
        raise ModelLoadError(
            f"{path}: cannot be read: {first_line(error)}; download it again, or use another file"
        ) from error
    return {name: value for name, value in found.items() if isinstance(value, str)}
