"""Quantizes the transformer's weights with the libraries that diffusers integrates.

Only the 60 blocks are quantized. The embedders, the final modulation and the last layer stay in full precision. In the
13 B model they are 2.8 % of the parameters. On the built-in model, keeping them removes a quarter of nf4's error in a
forward pass (from 0.158 to 0.120 of the prediction's norm), mostly due to the last layer. Tencent's float8 checkpoint
does the same. The blocks' modulation is quantized: it is 27 % of the parameters, and keeping it would remove only a
tenth of the error (from 0.120 to 0.107). Layerwise casting (``fp8``) uses diffusers' own selection: it casts the
embedders of time, pooled text and guidance, and keeps the blocks' modulation.

``hunyuan_local.config.quantization`` says where each method runs, ``hunyuan_local.planner.quantization`` how many
bytes it takes.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, cast

import torch
from safetensors import safe_open

from ...config.profiles import Offload, Quantization
from ...config.quantization import NEEDS, installed_libraries
from ...errors import ConfigError, ModelLoadError

if TYPE_CHECKING:
    from diffusers import HunyuanVideoTransformer3DModel

    from ..diffusers_private import QuantizationConfigMixin

_OUTSIDE_THE_BLOCKS = ("context_embedder", "time_text_embed", "norm_out")
_LAST_LAYER = "proj_out"
# int8 x int8 products only save time where all tokens pass through a layer. CUDA's kernel rejects 16 or fewer rows
# (torchao #2376): modulation has one row, the text of a short prompt a few.
_FEW_ROWS = (
    "norm", "norm1", "norm1_context", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff_context",
)  # fmt: skip


def require(
    method: Quantization | None,
    device: str,
    capability: tuple[int, int] | None,
    offload: Offload = "none",
    *,
    dtype: str | None = None,
    compiled: bool = False,
    to_disk: bool = False,
    streamed: bool = True,
) -> None:
    """Reject a quantization method that cannot be used here, before reading any weights.

    Args:
        method: None for full precision, which is always allowed.
        device: ``cpu`` or ``cuda``.
        capability: compute capability of the CUDA device; None for a CPU.
        offload: the transformer's offload mode.
        dtype: the transformer's precision; None skips the check.
        compiled: whether its blocks are compiled.
        to_disk: whether group offload keeps it in files.
        streamed: whether group offload uses a stream.

    Raises:
        ConfigError: the library is missing, the device cannot run the method, or the offload mode cannot move such
            weights; names what can be used here.
    """
    if method is None:
        return
    libraries = installed_libraries()

    def problem(name: Quantization) -> str | None:
        return NEEDS[name].why_not(
            device, capability, offload, libraries, dtype=dtype,
            compiled=compiled, to_disk=to_disk, streamed=streamed,
        )  # fmt: skip

    reason = problem(method)
    if reason is not None:
        possible = ", ".join(name for name in NEEDS if problem(name) is None) or "nothing"
        raise ConfigError(
            f"quantization={method!r}: {reason}; with the rest of this profile, {possible} can be used here, or full "
            "precision (quantization: null)"
        )


def transformer_config(method: Quantization | None, dtype: torch.dtype) -> QuantizationConfigMixin | None:
    """The ``quantization_config`` for ``HunyuanVideoTransformer3DModel.from_pretrained``.

    None for full precision, and for ``fp8``, which is cast after loading. Pass ``device_map`` as a ``torch.device``:
    with the string "cpu", torchao silently leaves everything in full precision.

    Args:
        method: its library must be installed; see ``require``.
        dtype: dtype of the activations and of weights that are not quantized.
    """
    if method in (None, "fp8"):
        return None
    if method in ("nf4", "llm-int8"):
        from diffusers import BitsAndBytesConfig

        # The last layer's name would also match a layer in every single block: see ``_restore_last_layer``.
        skip = list(_OUTSIDE_THE_BLOCKS)
        if method == "llm-int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
        )
    from diffusers import TorchAoConfig
    from torchao import quantization as torchao

    # The scales of dynamic float8 are by row, that is by token and output channel, as those of the other methods are.
    # torchao's default is one scale for all: then one large value leaves few of the steps of float8 to all others.
    by_row = functools.partial(torchao.Float8DynamicActivationFloat8WeightConfig, granularity=torchao.PerRow())
    configs = {
        "fp8-weights": torchao.Float8WeightOnlyConfig,
        "fp8-dynamic": by_row,
        "int8": torchao.Int8WeightOnlyConfig,
        "int8-dynamic": torchao.Int8DynamicActivationInt8WeightConfig,
    }
    # A name matches parameter names that contain it followed by a dot, or equal it: the blocks have a proj_out too.
    skip = [*_OUTSIDE_THE_BLOCKS, f"{_LAST_LAYER}.weight", *(_FEW_ROWS if method == "int8-dynamic" else ())]
    # By default torchao changes inductor's settings for the whole process.
    return TorchAoConfig(configs[method](set_inductor_config=False), modules_to_not_convert=skip)


def finish_quantization(
    transformer: HunyuanVideoTransformer3DModel, method: Quantization | None, dtype: torch.dtype
) -> None:
    """Check that the library has quantized the weights, and restore the last layer if it should not have.

    Call it right after loading, before adding LoRAs.

    Args:
        transformer: loaded from a folder with this method's ``transformer_config``.
        method: does nothing for None and ``fp8``.
        dtype: as passed to ``transformer_config``.

    Raises:
        ModelLoadError: the library has quantized nothing.
    """
    if method in (None, "fp8"):
        return
    if type(transformer.single_transformer_blocks[0].attn.to_q.weight) is torch.nn.Parameter:
        raise ModelLoadError(
            f"quantization={method!r}: {NEEDS[method].library} left the weights in full precision; try another "
            "version of it, or a profile with another quantization"
        )
    if method in ("nf4", "llm-int8"):
        _restore_last_layer(transformer, dtype)


def cast_storage(transformer: HunyuanVideoTransformer3DModel, method: Quantization | None, dtype: torch.dtype) -> None:
    """For ``fp8``: store the weights as float8_e4m3fn (1 byte each), and cast each layer to ``dtype`` while it runs.

    Call it after merging LoRAs, which needs plain weights, and before placing the transformer: group offload with a
    stream copies the weights when it is set up. Never call ``.to(dtype)`` afterwards: layers that are not cast would
    lose precision, and the others would grow back to full size until they run.

    Args:
        transformer: in ``dtype``.
        method: does nothing for any other than ``fp8``.
        dtype: dtype of the activations.
    """
    if method == "fp8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)


def _restore_last_layer(transformer: HunyuanVideoTransformer3DModel, dtype: torch.dtype) -> None:
    """Restore the last layer from the checkpoint.

    diffusers' bitsandbytes integration skips modules by the last part of their name. The last layer shares its name
    with a layer in every single block (1.9 billion parameters), so it cannot be skipped by name.
    """
    quantized = transformer.get_submodule(_LAST_LAYER)
    weight, bias = (_read(transformer, f"{_LAST_LAYER}.{part}").to(quantized.bias.device, dtype) for part in
                    ("weight", "bias"))  # fmt: skip
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    transformer.set_submodule(_LAST_LAYER, layer.requires_grad_(False).eval())


def _read(transformer: HunyuanVideoTransformer3DModel, name: str) -> torch.Tensor:
    """Read one parameter from the folder that the model was loaded from."""
    from ..diffusers_private import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME, folder_of

    folder = folder_of(transformer)
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    file = SAFETENSORS_WEIGHTS_NAME
    if index.is_file():
        file = json.loads(index.read_text(encoding="utf-8"))["weight_map"][name]
    with safe_open(folder / file, framework="pt") as weights:
        return cast("torch.Tensor", weights.get_tensor(name))
