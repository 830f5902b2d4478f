"""Loads the transformer from a GGUF file, such as those of ``city96/HunyuanVideo-gguf``, with diffusers' reader.

The weights stay in the file's quantized format; each layer dequantizes its own while it runs. Only the weights come
from the file; the architecture comes from the checkpoint's config. Knows nothing about the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...config.profiles import Offload, Quantization
from ...config.quantization import GGUF_NEEDS, NEEDS, installed_libraries
from ...errors import ConfigError, HunyuanLocalError, ModelLoadError, first_line
from ...weights.architecture import owner_of_channels
from ...weights.gguf_header import check_gguf_header

if TYPE_CHECKING:
    from diffusers import HunyuanVideoTransformer3DModel


def require_gguf(source: str, quantization: Quantization | None, offload: Offload = "none") -> None:
    """Reject a GGUF file that the profile cannot use, before reading or downloading anything.

    Args:
        source: the model's ``transformer_gguf``.
        quantization: the profile's; must be None, because a GGUF file is already quantized.
        offload: the transformer's offload mode.

    Raises:
        ConfigError: the library ``gguf`` is missing, the offload mode cannot move such weights, or they would be
            quantized twice.
    """
    if quantization is not None:
        raise ConfigError(
            f"quantization={quantization!r}: transformer_gguf={source!r} is already quantized; use a profile without "
            f"quantization, or for {NEEDS[quantization].title} the model without the file"
        )
    reason = GGUF_NEEDS.why_not("cpu", None, offload, installed_libraries())
    if reason is not None:
        raise ConfigError(f"transformer_gguf={source!r}: {reason}; or use the model without it")


def load_gguf_transformer(
    path: Path, config_folder: Path, dtype: torch.dtype, on_note: Callable[[str], None] = lambda text: None
) -> HunyuanVideoTransformer3DModel:
    """Read a transformer on the CPU; needs no network.

    Args:
        path: a GGUF file with the weight names of Tencent's checkpoint or of diffusers.
        config_folder: the folder of the transformer's ``config.json``.
        dtype: dtype of the activations, and of weights that the file has in full precision.
        on_note: called with messages for the user.

    Raises:
        ConfigError: the file is missing or not a GGUF file, or ``gguf`` is not installed.
        ModelLoadError: the file is damaged or has weights of another model; names missing and unknown weights.
    """
    require_gguf(str(path), None)
    from accelerate import init_empty_weights
    from diffusers import GGUFQuantizationConfig, HunyuanVideoTransformer3DModel

    config = HunyuanVideoTransformer3DModel.load_config(config_folder, local_files_only=True)
    for note in check_gguf_header(path, takes_image=config.get("image_condition_type") is not None):
        on_note(note)
    try:
        with init_empty_weights():
            empty = HunyuanVideoTransformer3DModel.from_config(config)
        tensors = _read(path, empty)
    except HunyuanLocalError:
        raise
    except Exception as error:  # damaged files raise any type of error
        raise ModelLoadError(f"{path}: cannot be read: {first_line(error)}; download it again") from error
    expected = empty.state_dict()
    _check_names(path, tensors.keys(), expected.keys())
    for name, tensor in tensors.items():
        # diffusers checks matrices itself; they are stored as quantized blocks, so their shape differs here.
        if tensor.ndim != 2 and tensor.shape != expected[name].shape:
            raise _wrong_shape(path, name, tensor.shape, expected[name].shape)
    try:
        transformer = HunyuanVideoTransformer3DModel.from_single_file(
            tensors,
            config=str(config_folder),
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            local_files_only=True,
        )
    except Exception as error:
        raise ModelLoadError(
            f"{path}: does not fit the transformer of {config_folder}: {first_line(error)}; use a GGUF file of the "
            "same model"
        ) from error
    return transformer.eval().requires_grad_(False)


def _read(path: Path, empty: HunyuanVideoTransformer3DModel) -> dict[str, torch.Tensor]:
    """A file's tensors under diffusers' names; weights of linear layers stay as stored."""
    from ..diffusers_private import dequantize_gguf, read_gguf, to_diffusers_names

    # diffusers dequantizes only matrices; it would read the stored bytes of a bias as values.
    tensors = {name: value if value.ndim == 2 else dequantize_gguf(value) for name, value in read_gguf(path).items()}
    if tensors.keys() <= empty.state_dict().keys():
        return tensors
    _split_fused_layers(path, tensors, empty.config.num_attention_heads * empty.config.attention_head_dim)
    return to_diffusers_names(tensors)


def _split_fused_layers(path: Path, tensors: dict[str, torch.Tensor], width: int) -> None:
    """Split the single blocks' fused ``linear1`` into queries, keys, values and feed-forward, in place.

    Its rows are [q: width, k: width, v: width, mlp: the rest]. diffusers splits it too, but only for the 13 B model's
    width.
    """
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    for key in [key for key in tensors if key.startswith("single_blocks.") and ".linear1." in key]:
        block, part = key.split(".linear1.")
        fused = tensors.pop(key)
        if fused.shape[0] <= 3 * width:
            raise ModelLoadError(
                f"{path}: {key} has {fused.shape[0]} rows; this transformer needs more than {3 * width}; use a "
                "GGUF file of the same model"
            )
        block = block.replace("single_blocks", "single_transformer_blocks")
        for name, value in zip(
            names, fused.split_with_sizes((width,) * 3 + (fused.shape[0] - 3 * width,)), strict=True
        ):
            tensors[f"{block}.{name}.{part}"] = value


def _wrong_shape(path: Path, name: str, found: torch.Size, wanted: torch.Size) -> ModelLoadError:
    owner = owner_of_channels(name.removesuffix(".weight"), found)
    return ModelLoadError(
        f"{path}: {name} has the shape {list(found)}; this transformer needs {list(wanted)}"
        f"{owner and f': {owner}'}; use a GGUF file of the same model"
    )


def _check_names(path: Path, found: Iterable[str], expected: Iterable[str]) -> None:
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    problems = [f"{len(names)} {what}, such as {names[0]}" for names, what in
                ((missing, "missing"), (unknown, "not of this model")) if names]  # fmt: skip
    if problems:
        raise ModelLoadError(
            f"{path}: not the weights of this HunyuanVideo transformer: {'; '.join(problems)}; use a GGUF file of the "
            "same model, with the names of Tencent's checkpoint or of diffusers"
        )
