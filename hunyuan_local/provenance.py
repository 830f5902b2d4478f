"""What an mp4 says of how it was made, and how two such statements differ.

The statement is one JSON object in the file's comment tag and in ``--json``. A video that can hold none, since a
service gave it in a form that cannot be written again, has it beside it: ``a.mp4.json``. Knows nothing about pipelines;
who made the video says how.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .config import ModelConfig, RuntimeProfile
from .errors import ConfigError, HunyuanLocalError, VideoError
from .schema import GenerationRequest, SafetyVerdict, SeedTeller, Timings
from .video import read_metadata

FORMAT = "hunyuan-local/1"
_LIBRARIES = ("hunyuan-local", "torch", "diffusers", "transformers", "tokenizers", "accelerate", "imageio-ffmpeg")
_SNAPSHOT = re.compile(r"^[0-9a-f]{40}$")
_SOURCE_DATE = "SOURCE_DATE_EPOCH"
_LAST_S = 253_402_300_799  # the last second of the year 9999
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


class ModelIdentity(BaseModel):
    """Which model made it; of a hosted one no more than its name is known.

    ``config`` is the whole preset, with the repository or folder and the revision asked for,
    ``weights`` the identity of ``weights_identity``, what was there, and ``files`` the SHA-256 of what
    was added to it (LoRAs, a GGUF file) by path.
    """

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    config: ModelConfig | None = None
    weights: str | None = None
    files: dict[str, str] = {}


class RemoteTask(BaseModel):
    """Where a hosted video was made."""

    model_config = ConfigDict(frozen=True)

    base_url: str
    remote_id: str


class Provenance(SeedTeller, BaseModel):
    """How a video was made; None is what a hosted service does not tell, or ``remote`` of a local one.

    ``profile`` is the name that was asked for and ``runtime`` what it came to. ``recoveries`` are changes
    that were made because memory ran out. ``render_size`` is (width, height) before the encoder
    scaled it up. ``frames_sha256`` is over the RGB bytes of all frames: those handed to the encoder,
    or decoded from a hosted file; None where that cannot be decoded. ``file_sha256`` is that of a hosted file that was
    delivered as it came, and the statement beside it speaks of no other. ``safety`` is None where no frame was checked.
    """

    model_config = ConfigDict(frozen=True)

    format: str = FORMAT
    created_at: str
    backend: str
    request: GenerationRequest
    model: ModelIdentity
    profile: str | None = None
    runtime: RuntimeProfile | None = None
    device: str | None = None
    render_size: tuple[int, int] | None = None
    remote: RemoteTask | None = None
    versions: dict[str, str]
    timings: Timings
    frames_sha256: str | None
    file_sha256: str | None = None
    notes: list[str] = []
    recoveries: list[str] = []
    safety: SafetyVerdict | None = None

    @property
    def told_seed(self) -> int | None:
        """The seed of the request."""
        return self.request.seed


def read_provenance(path: Path) -> Provenance:
    """The statement inside a video file, or beside one that was delivered as it came.

    Raises:
        VideoError: the file cannot be read, or was not made by this package.
    """
    text = _statement_beside(path) or read_metadata(path)
    if text is None:
        raise VideoError(f"{path}: says nothing of how it was made; only files written by hunyuan-local do")
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise VideoError(f"{path}: its comment is not a {FORMAT} statement, so it was made by something else")
        # JSON has no tuples, and the request's own checks are strict about types, which JSON keeps.
        return Provenance(**fields)
    except VideoError:
        raise
    except (json.JSONDecodeError, ValidationError, HunyuanLocalError, TypeError) as error:
        raise VideoError(f"{path}: its statement of how it was made is damaged: {error}") from error


def beside(path: Path) -> Path:
    """Where the statement of a video is that can hold none."""
    return path.with_name(f"{path.name}.json")


def _statement_beside(path: Path) -> str | None:
    """The text beside a video, if it speaks of that very file."""
    try:
        text = beside(path).read_text(encoding="utf-8")
        said = json.loads(text)
        return text if isinstance(said, dict) and said.get("file_sha256") == file_sha256(path) else None
    except (OSError, ValueError):
        return None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(old: Provenance, new: Provenance) -> list[str]:
    """What differs in model, profile, device and library versions, one line each."""
    lines = []
    before, after = _comparable(old), _comparable(new)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            lines.append(f"{key}: {before.get(key)} then, {after.get(key)} now")
    return lines


def _comparable(provenance: Provenance) -> dict[str, object]:
    config: dict[str, object] = {"model": provenance.model.name}
    if provenance.model.config is not None:
        config = provenance.model.config.model_dump(include={"name", "model_id", "revision", "prompt_template"})
    stack: dict[str, object] = {
        "weights": provenance.model.weights, "profile": provenance.profile, "device": provenance.device,
    }  # fmt: skip
    if provenance.runtime is not None:
        del stack["profile"]
        stack |= {f"profile.{key}": value for key, value in provenance.runtime.model_dump(exclude={"name"}).items()}
    return config | stack | provenance.model.files | provenance.versions


def weights_identity(folder: Path) -> str:
    """An identity of a checkpoint that costs no full read of the weights.

    For a snapshot in the Hub's cache that is the commit. For any other folder it is a SHA-256 over
    the name and size of each file, the header of each safetensors file (names, types, shapes and
    places of all tensors) and the content of each small JSON and text file. Other values in tensors
    of the same shapes are not seen.
    """
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and _SNAPSHOT.match(resolved.name):
        return f"commit:{resolved.name}"
    digest = hashlib.sha256()
    for path in sorted(p for p in resolved.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{path.relative_to(resolved).as_posix()}\0{path.stat().st_size}\0".encode())
        if path.suffix == ".safetensors":
            digest.update(_safetensors_header(path))
        elif path.suffix in {".json", ".txt"} and path.stat().st_size < 50_000_000:
            digest.update(path.read_bytes())
    return f"headers-sha256:{digest.hexdigest()}"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide what the frames look like."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def check_source_date() -> None:
    """Refuse a ``SOURCE_DATE_EPOCH`` that is no time: better at the start than when a video says when it was made.

    Raises:
        ConfigError: it is set and is not a whole number of seconds since 1970, up to the year 9999.
    """
    _source_date()


def now() -> str:
    """UTC time in ISO 8601, to the second; ``SOURCE_DATE_EPOCH`` overrides it, but for one that is no time."""
    moment = None
    with contextlib.suppress(ConfigError):  # a finished video is not lost to it
        moment = _source_date()
    return (moment or datetime.now(UTC)).isoformat(timespec="seconds")


def statement(**fields: Any) -> Provenance:
    """A new statement, with the time and the library versions filled in."""
    return Provenance(created_at=now(), versions=library_versions(), **fields)


def _source_date() -> datetime | None:
    """What ``SOURCE_DATE_EPOCH`` says; None where it is not set, or empty."""
    if not (text := os.environ.get(_SOURCE_DATE)):
        return None
    seconds = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else _LAST_S + 1
    if seconds > _LAST_S:
        raise ConfigError(
            f"{_SOURCE_DATE}={text!r}: must be a whole number of seconds since 1970, up to {_LAST_S}, such as "
            "1767225600; correct it, or unset it"
        )
    return datetime.fromtimestamp(seconds, UTC)


def _safetensors_header(path: Path) -> bytes:
    """The JSON header: its length as 8 little-endian bytes, then so many bytes of JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, _MAX_HEADER_BYTES))
