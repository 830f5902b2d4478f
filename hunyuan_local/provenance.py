"""What an mp4 says of how it was made, and how two such statements differ.

The statement is one JSON object in the file's comment tag and in ``--json``. Knows nothing about
pipelines; who made the video says how.
"""

from __future__ import annotations

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
from .errors import HunyuanLocalError, VideoError
from .schema import GenerationRequest, SafetyVerdict, Timings
from .video import read_metadata

FORMAT = "hunyuan-local/1"
_LIBRARIES = ("hunyuan-local", "torch", "diffusers", "transformers", "tokenizers", "accelerate", "imageio-ffmpeg")
_SNAPSHOT = re.compile(r"^[0-9a-f]{40}$")
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


class Provenance(BaseModel):
    """How a video was made; None is what a hosted service does not tell, or ``remote`` of a local one.

    ``profile`` is the name that was asked for and ``runtime`` what it came to. ``recoveries`` are changes
    that were made because memory ran out. ``render_size`` is (width, height) before the encoder
    scaled it up. ``frames_sha256`` is over the RGB bytes of all frames: those handed to the encoder,
    or decoded from a hosted file. ``safety`` is None where no frame was checked.
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
    frames_sha256: str
    notes: list[str] = []
    recoveries: list[str] = []
    safety: SafetyVerdict | None = None


def read_provenance(path: Path) -> Provenance:
    """The statement inside a video file.

    Raises:
        VideoError: the file cannot be read, or was not made by this package.
    """
    text = read_metadata(path)
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


def now() -> str:
    """UTC time in ISO 8601, to the second; ``SOURCE_DATE_EPOCH`` overrides it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def statement(**fields: Any) -> Provenance:
    """A new statement, with the time and the library versions filled in."""
    return Provenance(created_at=now(), versions=library_versions(), **fields)


def _safetensors_header(path: Path) -> bytes:
    """The JSON header: its length as 8 little-endian bytes, then so many bytes of JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, _MAX_HEADER_BYTES))
