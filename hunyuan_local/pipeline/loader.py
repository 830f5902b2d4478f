"""Turns a model config and a runtime profile into a pipeline that is ready on its device."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import HunyuanVideoPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from ..config import ModelConfig, RuntimeProfile
from ..errors import ConfigError, GpuMemoryError, HunyuanLocalError, ModelLoadError
from ..schema import Progress
from ..weights.files import missing_files
from ..weights.source import provide
from .acceleration import accelerate
from .memory import place
from .tokenizers import load_clip_tokenizer, load_llama_tokenizer


@dataclass
class LoadedModel:
    """A pipeline on its device, with the config and profile that made it and its folder on disk."""

    pipe: HunyuanVideoPipeline
    config: ModelConfig
    profile: RuntimeProfile
    folder: Path


def load_model(
    config: ModelConfig,
    profile: RuntimeProfile,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> LoadedModel:
    """Load all seven components in the profile's precisions and place them as it says.

    The weights come from a folder, from the Hub's cache, or, if their licence has been accepted, from
    the Hub; with ``HF_HUB_OFFLINE=1`` nothing is downloaded. Only safetensors files are read.

    Args:
        config: which weights.
        profile: where and in which precision.
        on_progress: told how far a download is.
        on_note: told what the user should know of it.

    Raises:
        ConfigError: the profile needs a CUDA device and there is none; an unknown repository; weights that are not
            here, under a licence that has not been accepted.
        ModelLoadError: weights missing, unreadable, or not of this pipeline.
        TokenizerMismatchError: the tokenizer would misread prompts.
        GpuMemoryError: the device does not hold the components.
    """
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"profile={profile.name!r}: needs a CUDA device and none is visible; use the profile cpu")
    with _translated_errors(config):
        folder = provide(config, lambda transfer: on_progress(transfer.progress), on_note)
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
            profile = accelerate(pipe, profile)
    pipe.set_progress_bar_config(disable=True)
    return LoadedModel(pipe=pipe, config=config, profile=profile, folder=folder)


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
