"""The transformer from a GGUF file, as ``city96/HunyuanVideo-gguf`` has them, through diffusers' own reader.

The weights stay as the file has them and are turned into numbers layer by layer while they are used. Only the
weights come from the file; the architecture is that of the checkpoint beside it. Knows nothing about the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...config.profiles import Offload, Quantization
from ...config.quantization import GGUF_NEEDS, NEEDS, installed_libraries
from ...errors import ConfigError, HunyuanLocalError, ModelLoadError, first_line
from ...weights.gguf_header import check_gguf_header

if TYPE_CHECKING:
    from diffusers import HunyuanVideoTransformer3DModel


def require_gguf(source: str, quantization: Quantization | None, offload: Offload = "none") -> None:
    """Refuse a GGUF file that a profile cannot use, before anything is read or fetched.

    Args:
        source: the model's ``transformer_gguf``.
        quantization: the profile's; a GGUF file is quantised already.
        offload: how the transformer is moved.

    Raises:
        ConfigError: the library ``gguf`` is missing, the offload cannot move such weights, or they would be
            quantised twice.
    """
    if quantization is not None:
        raise ConfigError(
            f"quantization={quantization!r}: transformer_gguf={source!r} is quantised already; use a profile without "
            f"quantization, or the model without the file for {NEEDS[quantization].title}"
        )
    reason = GGUF_NEEDS.why_not("cpu", None, offload, installed_libraries())
    if reason is not None:
        raise ConfigError(f"transformer_gguf={source!r}: {reason}; or use the model without it")


def load_gguf_transformer(
    path: Path, config_folder: Path, dtype: torch.dtype, on_note: Callable[[str], None] = lambda text: None
) -> HunyuanVideoTransformer3DModel:
    """Read a transformer on the CPU; needs no network.

    Args:
        path: a GGUF file with the names of Tencent's checkpoint or those of diffusers.
        config_folder: has the transformer's ``config.json``.
        dtype: that of the activations, and of what the file has in full precision.
        on_note: receives what the user should know of the file.

    Raises:
        ConfigError: no file, no GGUF file, or ``gguf`` is not installed.
        ModelLoadError: damaged, or the weights of another model; says which are missing or too many.
    """
    require_gguf(str(path), None)
    for note in check_gguf_header(path):
        on_note(note)
    from accelerate import init_empty_weights
    from diffusers import GGUFQuantizationConfig, HunyuanVideoTransformer3DModel

    try:
        config = HunyuanVideoTransformer3DModel.load_config(config_folder, local_files_only=True)
        with init_empty_weights():
            empty = HunyuanVideoTransformer3DModel.from_config(config)
        tensors = _read(path, empty)
    except HunyuanLocalError:
        raise
    except Exception as error:  # damaged files raise whatever their reader raises
        raise ModelLoadError(f"{path}: cannot be read: {first_line(error)}; fetch it again, or use another") from error
    expected = empty.state_dict()
    _check_names(path, tensors.keys(), expected.keys())
    for name, tensor in tensors.items():
        # The library checks matrices, which are stored in blocks of numbers.
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
    """The tensors of a file under diffusers' names, the weights of linear layers as they are stored."""
    from ..diffusers_private import dequantize_gguf, read_gguf, to_diffusers_names

    # The library has a layer for quantised matrices alone, and would take the bytes of a bias for numbers.
    tensors = {name: value if value.ndim == 2 else dequantize_gguf(value) for name, value in read_gguf(path).items()}
    if tensors.keys() <= empty.state_dict().keys():
        return tensors
    _split_fused_layers(path, tensors, empty.config.num_attention_heads * empty.config.attention_head_dim)
    return to_diffusers_names(tensors)


def _split_fused_layers(path: Path, tensors: dict[str, torch.Tensor], width: int) -> None:
    """Take the single blocks' queries, keys, values and feed-forward apart, in place.

    The library does so too, but for the 13 B model's width alone.
    """
    names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    for key in [key for key in tensors if key.startswith("single_blocks.") and ".linear1." in key]:
        block, part = key.split(".linear1.")
        fused = tensors.pop(key)
        if fused.shape[0] <= 3 * width:
            raise ModelLoadError(
                f"{path}: {key} has {fused.shape[0]} rows where this transformer needs more than {3 * width}; use a "
                "GGUF file of the same model"
            )
        block = block.replace("single_blocks", "single_transformer_blocks")
        for name, value in zip(
            names, fused.split_with_sizes((width,) * 3 + (fused.shape[0] - 3 * width,)), strict=True
        ):
            tensors[f"{block}.{name}.{part}"] = value


def _wrong_shape(path: Path, name: str, found: torch.Size, wanted: torch.Size) -> ModelLoadError:
    channels = "; an image-to-video model has more channels here" if name == "x_embedder.proj.weight" else ""
    return ModelLoadError(
        f"{path}: {name} has the shape {list(found)} where this transformer needs {list(wanted)}{channels}; use a GGUF "
        "file of the same model"
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
