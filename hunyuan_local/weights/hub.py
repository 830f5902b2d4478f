"""The Hugging Face Hub: where it is, what a repository holds there, and its refusals in this project's words."""

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
    """An address that speaks the Hub's API, and the folder of the cache on this machine."""

    endpoint: str
    cache: Path

    @classmethod
    def default(cls) -> Hub:
        """As ``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_CACHE`` say."""
        return cls(endpoint(), cache_folder())

    def check_download(self, field: str) -> None:
        """Refuse to download where the environment does not allow it: no home folder, a proxy that is none.

        Raises:
            ConfigError: names the variable to set or to unset.
        """
        check_way(self.endpoint)
        if str(self.cache).startswith("~"):
            raise ConfigError(
                f"{field}: cannot be downloaded, as the home folder is not known: HOME is not set, and this user has "
                "no account; set HF_HOME to a folder that can be written"
            )

    def repository(self, model_id: str) -> Path:
        """The folder of a repository in the cache; it need not be there."""
        return self.cache / f"models--{model_id.replace('/', '--')}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; ``sha256`` is known of the large ones."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class RepositoryListing:
    """The files of a checkpoint in a repository that the pipeline reads, at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]


def list_files(config: ModelConfig, hub: Hub, here: str) -> RepositoryListing:
    """Ask the Hub what it has of a model.

    Args:
        here: what this machine has of it, for the error.

    Raises:
        ConfigError: no such repository or revision, or it holds no whole checkpoint.
        ModelLoadError: the Hub cannot be reached, or does not let this user in.
    """
    remedy = "check the name and the network, or give the path of a folder that holds the model"
    with translated(config, f"{here}, and {hub.endpoint} could not be reached", remedy):
        info = HfApi(endpoint=hub.endpoint, library_name="hunyuan-local").model_info(
            config.model_id, revision=config.revision, files_metadata=True
        )
    assert info.sha is not None  # the Hub says it of each model
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    wanted = wanted_files(siblings)
    if absent := absent_parts(wanted):
        raise ConfigError(
            f"model={config.model_id!r}: the repository lacks {', '.join(absent)}, so it is no whole HunyuanVideo "
            "checkpoint in diffusers' layout with safetensors"
        )
    return RepositoryListing(info.sha, tuple(_remote_file(siblings[name]) for name in wanted))


@contextlib.contextmanager
def translated(config: ModelConfig, what_failed: str, remedy: str) -> Iterator[None]:
    """One border where the errors of the Hub's client, its HTTP library and the disk become ours.

    The texts are about anything that has no words of its own here.
    """
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # the client and its HTTP library, in two versions, each have their own
        _refuse_known(config, error)
        raise ModelLoadError(f"model={config.model_id!r}: {what_failed} ({first_line(error)}); {remedy}") from error


def _remote_file(sibling: RepoSibling) -> RemoteFile:
    return RemoteFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)


def _refuse_known(config: ModelConfig, error: BaseException) -> None:
    """Raise our own error if anything in the chain of causes says what is wrong."""
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
                    f"model={config.model_id!r}: the disk is full ({cause.strerror}); what has arrived stays: make "
                    "room and run the same command again, or set HF_HOME to a folder on a larger disk"
                ) from error
            case OSError(errno=code) if code in _NOT_WRITABLE:
                raise ModelLoadError(
                    f"model={config.model_id!r}: {cause.filename}: cannot be written ({cause.strerror}); make it "
                    "writable, or set HF_HOME to another folder"
                ) from error
        cause = cause.__cause__ or cause.__context__
