"""Builds a pipeline that is ready on its device from a model config and a runtime profile.

The transformer, the autoencoder and the tokenizers are loaded immediately; the text encoders only for a prompt that
is not in the cache of encoded prompts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from diffusers.utils import logging as diffusers_logging

from ...config import ModelConfig, RuntimeProfile, cache_dir
from ...config.profiles import Offload, Residence
from ...config.quantization import warning
from ...errors import ConfigError, HunyuanLocalError, ModelLoadError, first_line
from ...schema import Progress
from ...weights.single_file import find_file, sha256_of
from ...weights.source import provide
from ..acceleration import accelerate
from ..convolution import decode_in_slices, prefer_onednn
from ..families.base import Family
from ..library_output import quiet_transformers
from ..memory.allocator import keep_freed_memory
from ..memory.device import is_out_of_memory, nvidia_capability, out_of_memory
from ..memory.device_allocator import prepare_device_allocator
from ..memory.placement import Placement
from ..model import LoadedModel
from ..text.prompt_cache import PromptCache, encoder_identity
from ..text.prompt_encoder import TEXT_ENCODERS, PromptEncoder
from ..text.tokenizers import load_clip_tokenizer, load_llama_tokenizer
from .completeness import check_classes, check_weights, missing_weights
from .gguf import load_gguf_transformer, require_gguf
from .lora_loader import add_loras
from .quantization import cast_storage, finish_quantization, require, transformer_config

OnNote = Callable[[str], None]
# The transformer's offload mode, by its residence.
_OFFLOADS: dict[Residence, Offload] = {
    "device": "none",
    "visit": "model",
    "group": "group",
    "sequential": "sequential",
    "cpu": "none",
}


def load_model(
    config: ModelConfig,
    profile: RuntimeProfile,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_note: OnNote = lambda text: None,
) -> LoadedModel:
    """Load a model in the profile's precisions and place its components as the profile says.

    The weights come from a folder, from the Hub's cache, or, if their licence has been accepted, from the Hub; with
    ``HF_HUB_OFFLINE=1`` nothing is downloaded. Reads only safetensors files, one component at a time; weights that
    stay on the device are read directly to it. Sets the allocator of the process: see
    :func:`..memory.allocator.keep_freed_memory` and :func:`..memory.device_allocator.prepare_device_allocator`.

    Args:
        config: which weights to load.
        profile: on which device and in which precision.
        on_progress: called during a download.
        on_note: called with messages for the user.

    Raises:
        ConfigError: the profile needs a CUDA device and there is none; the repository is unknown; the weights are not
            here and their licence has not been accepted.
        ModelLoadError: weights are missing, unreadable, or for another pipeline.
        TokenizerMismatchError: the tokenizer would misread prompts.
        GpuMemoryError: the components do not fit on the device.
    """
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"profile={profile.name!r}: needs a CUDA device and none is visible; use the profile cpu")
    if profile.context_parallel is not None:
        raise ConfigError(
            f"profile={profile.name!r}: its context_parallel needs several processes, and this is one; use "
            "'hunyuan-local generate' or get_backend, or remove context_parallel from the profile"
        )
    check_precision(config, profile)
    if (text := warning(profile.quantization, profile.device, compiled=profile.compile)) is not None:
        on_note(text)
    if profile.device == "cpu":
        keep_freed_memory()
    else:
        prepare_device_allocator()
    with _translated_errors(config):
        folder = provide(config, lambda transfer: on_progress(transfer.progress), on_note)
        return _assemble(config, profile, folder, check_classes(config, folder), on_note)


def _assemble(
    config: ModelConfig, profile: RuntimeProfile, folder: Path, family: Family, on_note: OnNote
) -> LoadedModel:
    placement = Placement(profile)
    extra_files: dict[str, str] = {}

    def load(component: str) -> torch.nn.Module:
        with _translated_errors(config), _quiet_libraries():
            if component == "transformer":
                module: torch.nn.Module = _read_transformer(
                    config, profile, folder, family, placement, on_note, extra_files
                )
            else:
                module = _read(component, config, folder, family, profile, placement)
            placement.place(component, module.eval().requires_grad_(False))
        return module

    pipe = family.pipeline(
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=load_llama_tokenizer(folder / "tokenizer", config.prompt_template),
        tokenizer_2=load_clip_tokenizer(folder / "tokenizer_2"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        vae=load("vae"),
        transformer=load("transformer"),
        **family.parts(folder),
    )
    if profile.vae_tiling:
        pipe.vae.enable_tiling()
    if profile.device == "cpu":
        prefer_onednn(pipe.vae)
        decode_in_slices(pipe.vae.decoder)
    profile, kernel = accelerate(pipe, profile)
    prompts = PromptEncoder(
        pipe, family.prompts, config.prompt_template, placement, load,
        cache=_kept_prompts(config, profile, folder, on_note),
        staged=lambda place: _prompt_cache(config, profile, folder, place, max_bytes=None),
    )  # fmt: skip
    return LoadedModel(pipe, family, config, profile, folder, placement, prompts, kernel, extra_files)


def _read(
    component: str,
    config: ModelConfig,
    folder: Path,
    family: Family,
    profile: RuntimeProfile,
    placement: Placement,
    **options: object,
) -> torch.nn.Module:
    """Read one component's weights from its files directly to the target device, without a second full copy."""
    if component not in TEXT_ENCODERS:  # the weight names in their files can differ from the model's
        check_weights(config, folder, component, family.classes[component])
    module: torch.nn.Module
    module, loaded = family.classes[component].from_pretrained(
        folder / component,
        dtype=getattr(torch, getattr(profile.dtypes, component)),
        device_map={"": placement.loading_device(component)},
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **options,
    )
    if missing := loaded["missing_keys"]:
        raise missing_weights(config, component, missing)
    return module


def _read_transformer(
    config: ModelConfig,
    profile: RuntimeProfile,
    folder: Path,
    family: Family,
    placement: Placement,
    on_note: OnNote,
    extra_files: dict[str, str],
) -> HunyuanVideoTransformer3DModel:
    """Read the transformer in the profile's precision, and add the model config's LoRAs."""
    dtype = getattr(torch, profile.dtypes.transformer)
    if config.transformer_gguf is not None:
        file = find_file("transformer_gguf", config.transformer_gguf, ".gguf")
        extra_files[config.transformer_gguf] = sha256_of(file)
        transformer = load_gguf_transformer(file, folder / "transformer", dtype, on_note)
    else:
        quantization = transformer_config(profile.quantization, dtype)
        transformer = _read("transformer", config, folder, family, profile, placement, quantization_config=quantization)
        finish_quantization(transformer, profile.quantization, dtype)
    for lora in add_loras(transformer, config.lora):
        extra_files.update(lora.hashes)
        for note in lora.notes:
            on_note(note)
    cast_storage(transformer, profile.quantization, dtype)
    return transformer


def check_precision(config: ModelConfig, profile: RuntimeProfile) -> None:
    """Reject a precision that this machine or these weights do not support, before reading any weights.

    Raises:
        ConfigError: names what cannot be used, why, and what can.
    """
    capability = nvidia_capability(profile.device)
    offload = _OFFLOADS[profile.residence("transformer")]
    if config.transformer_gguf is not None:
        require_gguf(config.transformer_gguf, profile.quantization, offload)
    require(
        profile.quantization, profile.device, capability, offload,
        dtype=profile.dtypes.transformer, compiled=profile.compile,
        to_disk=profile.group.to_disk, streamed=profile.group.stream,
    )  # fmt: skip


def _prompt_cache(
    config: ModelConfig, profile: RuntimeProfile, folder: Path, place: Path, **limits: int | None
) -> PromptCache:
    dtypes = {name: getattr(profile.dtypes, name) for name in TEXT_ENCODERS}
    devices = {name: "cpu" if profile.residence(name) == "cpu" else profile.device for name in TEXT_ENCODERS}
    return PromptCache(place, encoder_identity(folder, dtypes, devices), config.prompt_template, **limits)


def _kept_prompts(config: ModelConfig, profile: RuntimeProfile, folder: Path, on_note: OnNote) -> PromptCache | None:
    """The cache of encoded prompts; None, with a note, if no folder can be used."""
    if not profile.prompt_cache:
        return None
    try:
        return _prompt_cache(config, profile, folder, cache_dir() / "prompts")
    except ConfigError as error:
        on_note(f"encoded prompts are not cached: {error}")
        return None


@contextlib.contextmanager
def _translated_errors(config: ModelConfig) -> Iterator[None]:
    """Translate library errors during loading into this package's errors."""
    try:
        yield
    except HunyuanLocalError:
        raise
    except Exception as error:  # damaged files raise any type of error
        if is_out_of_memory(error):
            raise out_of_memory(error, "load") from None
        raise ModelLoadError(
            f"model={config.model_id!r}: cannot be loaded: {first_line(error)}; if files are damaged, "
            "download the checkpoint again"
        ) from error


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide the libraries' log messages during loading, which would break the progress display.

    Among them are expected warnings about a tokenizer class that differs from the configuration: we load another class
    on purpose, and check it.
    """
    level = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(logging.ERROR)
    diffusers_logging.disable_progress_bar()
    try:
        with quiet_transformers():
            yield
    finally:
        diffusers_logging.set_verbosity(level)
        diffusers_logging.enable_progress_bar()
