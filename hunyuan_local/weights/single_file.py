"""Single files of weights beside a checkpoint, such as LoRAs: on this machine, in the Hub's cache, or fetched now."""

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
    """A file of weights: a local one, the one in the Hub's cache, or downloaded now.

    A file that is in the cache is used as it is; the Hub is not asked for a newer one.

    Args:
        field: what an error calls it.
        path: of a file, or ``owner/name/file`` on the Hub, folders before the file allowed.
        suffix: how the file's name must end there, such as ``.safetensors``.
        hub: None is the Hub of the environment.

    Raises:
        ConfigError: no such file, here or on the Hub.
        ModelLoadError: not here, and it cannot be fetched.
    """
    local = user_path(field, path)
    if local.is_file():
        return local
    owner, name, file = ([*path.split("/", 2), "", ""])[:3]
    if not (owner and name and file.endswith(suffix)) or path.startswith((".", "~", "/")):
        what = "a folder" if local.is_dir() else "no such file"
        raise ConfigError(
            f"{field}={path!r}: {what}; give the path of a {suffix} file, or its place on the Hub, "
            f"owner/name/file{suffix}"
        )
    return _find_on_hub(field, path, f"{owner}/{name}", file, hub or Hub.default())


def sha256_of(path: Path) -> str:
    """The hash of a file in hexadecimal digits; of a large file in the Hub's cache it is the name of its content."""
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
                f"{field}={path!r}: no such file, not in the local cache, and HF_HUB_OFFLINE is set; run once with a "
                "network, or give the path of a file"
            )
        hub.check_download(f"{field}={path!r}")
        return Path(hf_hub_download(
            repository, file, cache_dir=hub.cache, endpoint=hub.endpoint, library_name="hunyuan-local",
        ))  # fmt: skip
    except HFValidationError as error:
        raise ConfigError(f"{field}={path!r}: no such file, and {repository!r} cannot be a Hub id") from error
    except GatedRepoError as error:
        raise ModelLoadError(
            f"{field}={path!r}: {repository} needs its terms accepted on the Hub and a login (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"{field}={path!r}: no such file, and no Hub repository {repository}") from error
    except LocalEntryNotFoundError as error:  # the client's word for a Hub that it cannot reach
        raise ModelLoadError(
            f"{field}={path!r}: not in the local cache, and {hub.endpoint} could not be reached; try again later, or "
            "give the path of a file"
        ) from error
    except EntryNotFoundError as error:
        raise ConfigError(f"{field}={path!r}: the Hub repository {repository} has no file {file}") from error
    except OSError as error:  # of the network as of the disk
        raise ModelLoadError(
            f"{field}={path!r}: cannot be fetched from {hub.endpoint} to {hub.cache} ({first_line(error)}); "
            "try again later, or give the path of a file"
        ) from error
