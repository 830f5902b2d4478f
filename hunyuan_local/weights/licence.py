"""Which licence weights are under, and which this user has accepted: one small file each, written once."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from ..config import Licence, ModelConfig, configs_dir, load_model_config, model_names, state_dir
from ..config.places import known_state_dir
from ..durable import replacing
from ..errors import ConfigError
from .cache import find_part

ORIGINAL = "hunyuan-video"  # whose licence covers what is made from it
_SIZES = ("num_layers", "num_single_layers", "num_attention_heads", "attention_head_dim", "num_refiner_layers")


def accept(licence: Licence) -> None:
    """Remember that the user has accepted this version of the licence.

    Raises:
        ConfigError: the folder of the state cannot be written.
    """
    path = _record(licence, state_dir())
    record = licence.model_dump() | {"accepted_at": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as partial:
            partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: cannot be written: {error}; make it writable, or set HUNYUAN_LOCAL_STATE_DIR to another "
            "folder"
        ) from error


def is_accepted(licence: Licence | None) -> bool:
    """Whether nothing has to be accepted any more; another version of a licence has to be."""
    if licence is None:
        return True
    state = known_state_dir()
    return state is not None and os.path.isfile(_record(licence, state))


def licence_of(config: ModelConfig, folder: Path | None) -> Licence | None:
    """The terms of a model's weights: those of its config, or of the 13 B model where they are made from that.

    A folder or a repository that no config describes is made from it where its transformer has the very layers of the
    13 B model; of others no licence is known.

    Args:
        folder: where the checkpoint, or the part of it that is here, lies.
    """
    if config.licence is not None or config.is_described or folder is None:
        return config.licence
    if _layers(folder / "transformer" / "config.json") == _known_layers():
        return load_model_config(ORIGINAL).licence
    return None


def notices_of(config: ModelConfig) -> list[str]:
    """What a user must know at each use: of the licence, then of the model."""
    licence = licence_of(config, config.folder or find_part(config))
    return [text for text in (licence and licence.notice, config.notice) if text]


def check_accepted(config: ModelConfig, licence: Licence | None) -> None:
    """Refuse a model whose licence has not been accepted.

    Args:
        licence: as :func:`licence_of` finds it.

    Raises:
        ConfigError: with what the licence is, and how it is accepted.
    """
    if licence is not None and not is_accepted(licence):
        raise ConfigError(
            f"model={config.name!r}: {licence.notice}; read it, and accept it once with: "
            f"{download_command(config)} --accept-licence"
        )


def download_command(config: ModelConfig) -> str:
    """What a user types to download a model."""
    known = config.name in model_names() or config.name == config.model_id
    command = f"hunyuan-local download --model {config.name if known else 'FILE.yaml'}"
    return command if config.revision is None else f"{command} --revision {config.revision}"


def _record(licence: Licence, state: Path) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", f"{licence.name} {licence.version}".lower()).strip("-")
    return state / "licences" / f"{name}.json"


def _known_layers() -> dict[str, object] | None:
    """The sizes of the 13 B model's transformer."""
    path = configs_dir() / "architectures" / f"{ORIGINAL}.json"
    return _sizes(json.loads(path.read_text(encoding="utf-8"))["transformer"])


def _layers(config: Path) -> dict[str, object] | None:
    """The sizes of a checkpoint's transformer; None where they cannot be read."""
    try:
        return _sizes(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _sizes(transformer: dict[str, object]) -> dict[str, object]:
    return {name: transformer.get(name) for name in _SIZES}
