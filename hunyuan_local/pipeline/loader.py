"""Turns a model config and a runtime profile into a pipeline that is ready on its device."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers.utils import logging as transformers_logging

from ..config import ModelConfig, RuntimeProfile, is_offline
from ..errors import ConfigError, GpuMemoryError, HunyuanLocalError, ModelLoadError
from .memory import place
from .tokenizers import load_clip_tokenizer, load_llama_tokenizer


@dataclass
class LoadedModel:
    """A pipeline on its device, with the config and profile that made it and its folder on disk."""

    pipe: HunyuanVideoPipeline
    config: ModelConfig
    profile: RuntimeProfile
    folder: Path


def load_model(config: ModelConfig, profile: RuntimeProfile) -> LoadedModel:
    """Load all seven components in the profile's precisions and place them as it says.

    The weights come from a folder, from the Hub's cache, or from the Hub; with ``HF_HUB_OFFLINE=1``
    nothing is downloaded. Only safetensors files are read.

    Raises:
        ConfigError: the profile needs a CUDA device and there is none; an unknown repository.
        ModelLoadError: weights missing, unreadable, or not of this pipeline.
        TokenizerMismatchError: the tokenizer would misread prompts.
        GpuMemoryError: the device does not hold the components.
    """
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"profile={profile.name!r}: needs a CUDA device and none is visible; use the profile cpu")
    with _translated_errors(config):
        folder = find_folder(config)
        if missing := missing_files(folder):
            raise ModelLoadError(
                f"model={config.model_id!r}: {folder} lacks {', '.join(missing)}; fetch the checkpoint again"
            )
        with _quiet_libraries():
            pipe = HunyuanVideoPipeline.from_pretrained(
                folder,
                tokenizer=load_llama_tokenizer(folder / "tokenizer", config.prompt_template),
                tokenizer_2=load_clip_tokenizer(folder / "tokenizer_2"),
                dtype={name: getattr(torch, dtype) for name, dtype in profile.dtypes.model_dump().items()},
                use_safetensors=True,
                local_files_only=True,
            )
            place(pipe, profile)
    pipe.set_progress_bar_config(disable=True)
    return LoadedModel(pipe=pipe, config=config, profile=profile, folder=folder)


def find_folder(config: ModelConfig) -> Path:
    """The checkpoint's folder on disk, downloaded into the Hub's cache first if need be.

    Without a network, or with ``HF_HUB_OFFLINE=1``, the copy in the cache is used.

    Raises:
        ConfigError: the Hub has no such repository or revision.
        ModelLoadError: no copy in the cache, and none can be fetched.
    """
    if Path(config.source).is_dir():
        return Path(config.source)
    fetch = functools.partial(
        HunyuanVideoPipeline.download, config.source, revision=config.revision, use_safetensors=True
    )
    try:
        return Path(fetch(local_files_only=is_offline()))
    except Exception as error:  # diffusers, the Hub's client and its HTTP library each have their own
        _refuse_unknown(config, error)
        with contextlib.suppress(Exception):
            return Path(fetch(local_files_only=True))
        reason = "HF_HUB_OFFLINE is set" if is_offline() else f"the Hub could not be reached ({_first_line(error)})"
        raise ModelLoadError(
            f"model={config.model_id!r}: no folder of that name, not complete in the local cache, and {reason}; "
            "download it once on a machine with a network, or give the path of a folder that holds it"
        ) from error


def missing_files(folder: Path) -> list[str]:
    """Files that a complete checkpoint has and this folder lacks, such as shards not yet downloaded."""
    wanted = ["model_index.json", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"]
    missing = [name for name in wanted if not (folder / name).is_file()]
    for component in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        index = next((folder / component).glob("*.safetensors.index.json"), None)
        if index is not None:
            shards = set(json.loads(index.read_text())["weight_map"].values())
            missing += [f"{component}/{name}" for name in sorted(shards) if not (index.parent / name).is_file()]
        elif not any((folder / component).glob("*.safetensors")):
            missing.append(f"{component}/*.safetensors")
    return missing


def _refuse_unknown(config: ModelConfig, error: BaseException) -> None:
    """Raise ConfigError if anything in the chain of causes says that the name or revision is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RevisionNotFoundError):
            raise ConfigError(f"revision={config.revision!r}: {config.model_id} has no such revision") from error
        if isinstance(cause, GatedRepoError):
            raise ModelLoadError(
                f"model={config.model_id!r}: needs its terms accepted on the Hub and a login (hf auth login)"
            ) from error
        if isinstance(cause, RepositoryNotFoundError):
            raise ConfigError(f"model={config.model_id!r}: no such folder, and no such Hub repository") from error
        cause = cause.__cause__ or cause.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


@contextlib.contextmanager
def _translated_errors(config: ModelConfig) -> Iterator[None]:
    """One border where the libraries' errors of loading become ours."""
    try:
        yield
    except HunyuanLocalError:
        raise
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError(
            f"model={config.name!r}: the GPU's memory does not hold the weights; "
            "use a profile with offload (--profile gpu-24gb)"
        ) from error
    except Exception as error:  # damaged files raise whatever their reader raises
        raise ModelLoadError(
            f"model={config.model_id!r}: cannot be loaded: {_first_line(error)}; if files are damaged, "
            "fetch the checkpoint again"
        ) from error


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide the libraries' loading chatter, which would break up the progress display.

    Their warnings about a class name that differs from the configuration are expected here: the
    tokenizer is loaded on purpose as another class, and checked.
    """
    loggers = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    for library in loggers:
        library.set_verbosity(logging.ERROR)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(loggers, before, strict=True):
            library.set_verbosity(level)
        diffusers_logging.enable_progress_bar()
        if bars:
            transformers_logging.enable_progress_bar()
