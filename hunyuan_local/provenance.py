"""Provenance of a video: how it was generated, stored in the file, and how two provenances differ.

The provenance is one JSON object in the comment tag of the mp4 and in the output of ``--json``. If a service delivers a
format that cannot be rewritten, it is stored in a separate file next to the video, ``a.mp4.json``. This module knows
nothing about pipelines; the backend supplies the content.
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
_MAX_HEADER_BYTES = 100_000_000  # limit of the safetensors format


class ModelIdentity(BaseModel):
    """The model that generated a video; for a hosted model only the name is known.

    ``config`` is the complete preset with the requested repository or folder and revision. ``weights`` is the identity
    of the weights that were used, from ``weights_identity``. ``files`` maps the paths of added files (LoRAs, a GGUF
    file) to their SHA-256.
    """

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    config: ModelConfig | None = None
    weights: str | None = None
    files: dict[str, str] = {}


class RemoteTask(BaseModel):
    """The task that generated a hosted video."""

    model_config = ConfigDict(frozen=True)

    base_url: str
    remote_id: str


class Provenance(SeedTeller, BaseModel):
    """How a video was generated. Fields are None if a hosted service does not report them.

    ``profile`` is the requested name and ``runtime`` the profile that was used. ``recoveries`` lists changes made after
    memory ran out or an attention kernel failed. ``render_size`` is (width, height) before the encoder scaled the
    frames up. ``remote`` is None for a local video. ``frames_sha256`` is over the RGB bytes of all frames: the input of
    the encoder, or the decoded frames of a hosted file; None if it cannot be decoded. ``file_sha256`` is set for a
    hosted file that was stored unchanged, and ties a separate provenance file to it. ``safety`` is None if no frame was
    checked.
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
    """Read the provenance from a video file, or from the separate file next to it.

    Raises:
        VideoError: the file cannot be read, or was not written by this package.
    """
    text = _separate_statement(path) or read_metadata(path)
    if text is None:
        raise VideoError(f"{path}: contains no provenance; only files written by hunyuan-local do")
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise VideoError(f"{path}: its comment is not {FORMAT} provenance; another program wrote the file")
        # Validate in Python mode: tuples arrive as lists, and the request checks its types strictly itself.
        return Provenance(**fields)
    except VideoError:
        raise
    except (json.JSONDecodeError, ValidationError, HunyuanLocalError, TypeError) as error:
        raise VideoError(f"{path}: its provenance is damaged: {error}") from error


def statement_path(path: Path) -> Path:
    """Path of the separate provenance file of a video."""
    return path.with_name(f"{path.name}.json")


def _separate_statement(path: Path) -> str | None:
    """Content of the separate provenance file, if its hash matches the video."""
    try:
        text = statement_path(path).read_text(encoding="utf-8")
        said = json.loads(text)
        return text if isinstance(said, dict) and said.get("file_sha256") == file_sha256(path) else None
    except (OSError, ValueError):
        return None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(old: Provenance, new: Provenance) -> list[str]:
    """Differences in model, profile, device and library versions, one line each."""
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
    """Identify a checkpoint without reading all its weights.

    For a snapshot in the Hub cache, the identity is the commit. For other folders it is a SHA-256 over the name and
    size of each file, the header of each safetensors file (names, types, shapes and offsets of all tensors) and the
    content of each small JSON and text file. It does not detect changed values in tensors of the same shape.
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
    """Versions of Python and of the libraries that affect the frames."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def check_source_date() -> None:
    """Refuse an invalid ``SOURCE_DATE_EPOCH`` at the start rather than when the first video is written.

    Raises:
        ConfigError: it is set and not an integer number of seconds since 1970, up to the year 9999.
    """
    _source_date()


def now() -> str:
    """UTC time in ISO 8601, to the second; a valid ``SOURCE_DATE_EPOCH`` overrides it."""
    moment = None
    with contextlib.suppress(ConfigError):  # do not lose a finished video to an invalid variable
        moment = _source_date()
    return (moment or datetime.now(UTC)).isoformat(timespec="seconds")


def statement(**fields: Any) -> Provenance:
    """Create a provenance with the current time and library versions."""
    return Provenance(created_at=now(), versions=library_versions(), **fields)


def _source_date() -> datetime | None:
    """The time of ``SOURCE_DATE_EPOCH``; None if it is unset or empty."""
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
    """The header of a safetensors file: its length as a little-endian uint64, then that many bytes of JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, _MAX_HEADER_BYTES))
