"""Locates single files of weights, such as LoRAs: local, in the Hub cache, or downloaded."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from ..config import is_offline
from ..config.places import user_path
from ..errors import ConfigError, ModelLoadError, first_line
from .hub import Hub

_SHA256 = re.compile(r"[0-9a-f]{64}")


def find_file(field: str, path: str, suffix: str, hub: Hub | None = None) -> Path:
    """Find a file of weights locally or in the Hub cache, or download it.

    A file in the cache is used without asking the Hub for a newer version.

    Args:
        field: name of the field, for errors.
        path: path of a local file, or ``owner/name/file`` on the Hub, where ``file`` may include folders.
        suffix: required suffix of a file on the Hub, such as ``.safetensors``.
        hub: None uses the Hub of the environment.

    Raises:
        ConfigError: no such file, locally or on the Hub.
        ModelLoadError: the file is not local and cannot be downloaded.
    """
    local = user_path(field, path)
    if local.is_file():
        return local
    owner, name, file = ([*path.split("/", 2), "", ""])[:3]
    if not (owner and name and file.endswith(suffix)) or path.startswith((".", "~", "/")):
        what = "a folder" if local.is_dir() else "no such file"
        raise ConfigError(
            f"{field}={path!r}: {what}; give the path of a {suffix} file, or its location on the Hub, "
            f"owner/name/file{suffix}"
        )
    return _find_on_hub(field, path, f"{owner}/{name}", file, hub or Hub.default())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal; for a large file in the Hub cache, this is the name of its blob."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_on_hub(field: str, path: str, repository: str, file: str, hub: Hub) -> Path:
    try:
        cached = try_to_load_from_cache(repository, file, cache_dir=hub.cache)
        if isinstance(cached, str):
            return Path(cached)
        if is_offline():
            raise ModelLoadError(
                f"{field}={path!r}: no such file, not in the local cache, and HF_HUB_OFFLINE is set; run once with "
                "network access, or give the path of a file"
            )
        hub.check_download(f"{field}={path!r}")
        return Path(hf_hub_download(
            repository, file, cache_dir=hub.cache, endpoint=hub.endpoint, library_name="hunyuan-local",
        ))  # fmt: skip
    except HFValidationError as error:
        raise ConfigError(f"{field}={path!r}: no such file, and {repository!r} is not a valid Hub id") from error
    except GatedRepoError as error:
        raise ModelLoadError(
            f"{field}={path!r}: {repository} needs its terms accepted on the Hub and a login (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"{field}={path!r}: no such file, and no Hub repository {repository}") from error
    except LocalEntryNotFoundError as error:  # the client raises this if it cannot reach the Hub
        raise ModelLoadError(
            f"{field}={path!r}: not in the local cache, and {hub.endpoint} could not be reached; try again later, or "
            "give the path of a file"
        ) from error
    except EntryNotFoundError as error:
        raise ConfigError(f"{field}={path!r}: the Hub repository {repository} has no file {file}") from error
    except OSError as error:  # network or disk errors
        raise ModelLoadError(
            f"{field}={path!r}: cannot be downloaded from {hub.endpoint} to {hub.cache} ({first_line(error)}); "
            "try again later, or give the path of a file"
        ) from error
