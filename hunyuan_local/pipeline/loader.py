"""Turns a model config and a runtime profile into a pipeline that is ready on its device."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..config import ModelConfig, RuntimeProfile, is_offline
from ..errors import ConfigError, GpuMemoryError, ModelLoadError
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
        ConfigError: the profile needs a CUDA device and there is none.
        ModelLoadError: weights missing, unreadable, or not of this pipeline.
        TokenizerMismatchError: the tokenizer would misread prompts.
        GpuMemoryError: the device does not hold the components.
    """
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"profile={profile.name!r}: needs a CUDA device and none is visible; use the profile cpu")
    with _translated_errors(config), _quiet_libraries():
        folder = find_folder(config)
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
    """The checkpoint's folder on disk, downloaded into the Hub's cache first if need be."""
    if Path(config.source).is_dir():
        return Path(config.source)
    folder = HunyuanVideoPipeline.download(
        config.source, revision=config.revision, use_safetensors=True, local_files_only=is_offline()
    )
    return Path(folder)


@contextlib.contextmanager
def _translated_errors(config: ModelConfig) -> Iterator[None]:
    """One border where the libraries' errors of loading become ours."""
    try:
        yield
    except RepositoryNotFoundError as error:
        raise ModelLoadError(
            f"model={config.model_id!r}: the Hub has no such repository, or it needs a login; check the name"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        reason = "HF_HUB_OFFLINE is set" if is_offline() else "the Hub could not be reached"
        raise ModelLoadError(
            f"model={config.model_id!r}: the weights are not in the local cache and {reason}; "
            "download them once on a machine with a network, or give the path of a folder that holds them"
        ) from error
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError(
            f"model={config.name!r}: the GPU's memory does not hold the weights; "
            "use a profile with offload (--profile gpu-24gb)"
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        detail = str(error).strip().split("\n")[0]
        raise ModelLoadError(
            f"model={config.model_id!r}: cannot be loaded: {detail}; if files are missing or damaged, "
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
