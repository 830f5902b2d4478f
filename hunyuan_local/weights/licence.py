"""Which licences of weights this user has accepted: one small file each, written once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

from ..config import Licence, ModelConfig, model_names, state_dir
from ..durable import replacing
from ..errors import ConfigError


def accept(licence: Licence) -> None:
    """Remember that the user has accepted this version of the licence.

    Raises:
        ConfigError: the folder of the state cannot be written.
    """
    path = _record(licence)
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
    return licence is None or _record(licence).is_file()


def check_accepted(config: ModelConfig) -> None:
    """Refuse a model whose licence has not been accepted.

    Raises:
        ConfigError: with what the licence is, and how it is accepted.
    """
    if config.licence is not None and not is_accepted(config.licence):
        raise ConfigError(
            f"model={config.name!r}: {config.licence.notice}; read it, and accept it once with: "
            f"{download_command(config)} --accept-licence"
        )


def download_command(config: ModelConfig) -> str:
    """What a user types to download a model."""
    known = config.name in model_names() or config.name == config.model_id
    command = f"hunyuan-local download --model {config.name if known else 'FILE.yaml'}"
    return command if config.revision is None else f"{command} --revision {config.revision}"


def _record(licence: Licence) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", f"{licence.name} {licence.version}".lower()).strip("-")
    return state_dir() / "licences" / f"{name}.json"
