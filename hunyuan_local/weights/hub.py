"""The Hugging Face Hub: its address and cache, the files of a repository, and the translation of its errors."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..config import ModelConfig
from ..config.network import check_way
from ..errors import ConfigError, HunyuanLocalError, ModelLoadError, first_line
from .files import absent_parts, wanted_files
from .hub_private import RepoSibling, cache_folder, endpoint

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


@dataclass(frozen=True)
class Hub:
    """The address of a Hub and the local cache folder."""

    endpoint: str
    cache: Path

    @classmethod
    def default(cls) -> Hub:
        """The Hub set by ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_CACHE``."""
        return cls(endpoint(), cache_folder())

    def check_download(self, field: str) -> None:
        """Refuse to download if the environment prevents it: no home folder, or an invalid proxy.

        Raises:
            ConfigError: names the environment variable to set or unset.
        """
        check_way(self.endpoint)
        if str(self.cache).startswith("~"):
            raise ConfigError(
                f"{field}: cannot be downloaded, since the home folder is unknown: HOME is not set, and this user has "
                "no account; set HF_HOME to a writable folder"
            )

    def repository(self, model_id: str) -> Path:
        """The folder of a repository in the cache, whether or not it exists."""
        return self.cache / f"models--{model_id.replace('/', '--')}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; ``sha256`` is set only for large files."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class RepositoryListing:
    """The files that the pipeline reads from a repository, at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


def list_files(config: ModelConfig, hub: Hub, here: str) -> RepositoryListing:
    """List the files of a model on the Hub.

    Args:
        here: what this machine has of the model, for the error message.

    Raises:
        ConfigError: no such repository or revision, or it does not contain a complete checkpoint.
        ModelLoadError: the Hub cannot be reached, or denies access.
    """
    remedy = "check the name and the network, or give the path of a folder that contains the model"
    with translated(config, f"{here}, and {hub.endpoint} could not be reached", remedy):
        info = HfApi(endpoint=hub.endpoint, library_name="hunyuan-local").model_info(
            config.model_id, revision=config.revision, files_metadata=True
        )
    assert info.sha is not None  # the Hub sends it for every model
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    wanted = wanted_files(siblings)
    if absent := absent_parts(wanted):
        raise ConfigError(
            f"model={config.model_id!r}: the repository lacks {', '.join(absent)}, so it is not a complete "
            "HunyuanVideo checkpoint in the diffusers layout with safetensors"
        )
    return RepositoryListing(info.sha, tuple(_remote_file(siblings[name]) for name in wanted))


@contextlib.contextmanager
def translated(config: ModelConfig, what_failed: str, remedy: str) -> Iterator[None]:
    """Translate errors of the Hub client, its HTTP library and the disk into ours.

    ``what_failed`` and ``remedy`` are used for errors that have no specific message here.
    """
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # the client and its HTTP library raise different classes in different versions
        _refuse_known(config, error)
        raise ModelLoadError(f"model={config.model_id!r}: {what_failed} ({first_line(error)}); {remedy}") from error


def _remote_file(sibling: RepoSibling) -> RemoteFile:
    return RemoteFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)


def _refuse_known(config: ModelConfig, error: BaseException) -> None:
    """Raise a specific error if the chain of causes contains a known one."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case HFValidationError():
                raise ConfigError(
                    f"model={config.model_id!r}: no such folder, and not a Hub id (owner/name)"
                ) from error
            case RevisionNotFoundError():
                raise ConfigError(f"revision={config.revision!r}: {config.model_id} has no such revision") from error
            case GatedRepoError():
                raise ModelLoadError(
                    f"model={config.model_id!r}: needs its terms accepted on the Hub and a login (hf auth login)"
                ) from error
            case RepositoryNotFoundError():
                raise ConfigError(f"model={config.model_id!r}: no such folder, and no such Hub repository") from error
            case OSError(errno=code) if code in _NO_SPACE:
                raise ModelLoadError(
                    f"model={config.model_id!r}: the disk is full ({cause.strerror}); free some space and run the "
                    "same command again to resume, or set HF_HOME to a folder on a larger disk"
                ) from error
            case OSError(errno=code) if code in _NOT_WRITABLE:
                raise ModelLoadError(
                    f"model={config.model_id!r}: {cause.filename}: cannot be written ({cause.strerror}); make it "
                    "writable, or set HF_HOME to another folder"
                ) from error
        cause = cause.__cause__ or cause.__context__
