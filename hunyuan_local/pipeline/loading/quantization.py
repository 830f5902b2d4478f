"""The transformer's weights in fewer bits, each way through the library's own integration in diffusers.

Full precision is kept by all that is not in the 60 blocks: the embedders, the last modulation and the last
layer. In the 13 B model that is 2.8 % of the parameters; on the built-in model it is a quarter of nf4's error
in a forward pass (0.158 to 0.120 of the prediction's norm), most of it from the last layer alone. Tencent's own
float8 checkpoint keeps the same. The blocks' modulation is quantised: it is 27 % of the parameters, and a tenth
of that error (0.120 to 0.107). Layerwise casting has a choice of its own, diffusers', which is not changed here:
it casts the embedders of time, pooled text and guidance, and keeps the blocks' modulation.

Where each way can run is in ``hunyuan_local.config.quantization``, how many bytes it takes in
``hunyuan_local.planner.quantization``.
"""

from __future__ import annotations

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
# Products of two int8 factors are for speed, which lies in what all tokens pass through. CUDA's kernel refuses 16 rows
# and fewer (torchao #2376): modulation has one, a short prompt's text a few.
_FEW_ROWS = (
    "norm", "norm1", "norm1_context", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff_context",
)  # fmt: skip


def require(
    method: Quantization | None,
    device: str,
    capability: tuple[int, int] | None,
    offload: Offload = "none",
    *,
    compiled: bool = False,
    to_disk: bool = False,
    streamed: bool = True,
) -> None:
    """Refuse a quantisation that cannot be used here, before any weight is read.

    Args:
        method: None is full precision, which is always allowed.
        device: ``cpu`` or ``cuda``.
        capability: compute capability of the CUDA device; None for a CPU.
        offload: how the transformer is moved.
        compiled: whether its blocks are compiled.
        to_disk: whether group offload keeps it in files.
        streamed: whether group offload uses a stream.

    Raises:
        ConfigError: its library is missing, the device cannot run it, or the offload cannot move it; names what can
            be used here.
    """
    if method is None:
        return
    libraries = installed_libraries()

    def problem(name: Quantization) -> str | None:
        return NEEDS[name].why_not(
            device, capability, offload, libraries, compiled=compiled, to_disk=to_disk, streamed=streamed
        )

    reason = problem(method)
    if reason is not None:
        possible = ", ".join(name for name in NEEDS if problem(name) is None) or "nothing"
        raise ConfigError(
            f"quantization={method!r}: {reason}; with the rest of this profile, {possible} can be used here, or full "
            "precision (quantization: null)"
        )


def transformer_config(method: Quantization | None, dtype: torch.dtype) -> QuantizationConfigMixin | None:
    """What ``HunyuanVideoTransformer3DModel.from_pretrained`` takes as ``quantization_config``.

    None for full precision and for ``fp8``, which is cast after the load. torchao leaves all in full precision,
    without a word, where ``device_map`` names the CPU by a string instead of a ``torch.device``.

    Args:
        method: its library must be installed; see ``require``.
        dtype: that of the activations, and of what is not quantised.
    """
    if method in (None, "fp8"):
        return None
    if method in ("nf4", "llm-int8"):
        from diffusers import BitsAndBytesConfig

        # It would take the last layer's name for that of all blocks' too: see ``_restore_last_layer``.
        skip = list(_OUTSIDE_THE_BLOCKS)
        if method == "llm-int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
        )
    from diffusers import TorchAoConfig
    from torchao import quantization as torchao

    configs = {
        "fp8-weights": torchao.Float8WeightOnlyConfig,
        "fp8-dynamic": torchao.Float8DynamicActivationFloat8WeightConfig,
        "int8": torchao.Int8WeightOnlyConfig,
        "int8-dynamic": torchao.Int8DynamicActivationInt8WeightConfig,
    }
    # Matched as part of a parameter's name if a dot follows, or as the whole of it: the blocks have a proj_out too.
    skip = [*_OUTSIDE_THE_BLOCKS, f"{_LAST_LAYER}.weight", *(_FEW_ROWS if method == "int8-dynamic" else ())]
    # Inductor's settings are the process's, and none of a layer's business.
    return TorchAoConfig(configs[method](set_inductor_config=False), modules_to_not_convert=skip)


def finish_quantization(
    transformer: HunyuanVideoTransformer3DModel, method: Quantization | None, dtype: torch.dtype
) -> None:
    """Check what the library has made of the weights, and put back what it should have left alone.

    To be called right after the load, before LoRAs are added.

    Args:
        transformer: loaded from a folder with ``transformer_config`` of this method.
        method: nothing is done for None and ``fp8``.
        dtype: as given to ``transformer_config``.

    Raises:
        ModelLoadError: the library has quantised nothing.
    """
    if method in (None, "fp8"):
        return
    if type(transformer.single_transformer_blocks[0].attn.to_q.weight) is torch.nn.Parameter:
        raise ModelLoadError(
            f"quantization={method!r}: {NEEDS[method].library} has left the weights in full precision; another "
            "version of it may do better, or use a profile with another quantization"
        )
    if method in ("nf4", "llm-int8"):
        _restore_last_layer(transformer, dtype)


def cast_storage(transformer: HunyuanVideoTransformer3DModel, method: Quantization | None, dtype: torch.dtype) -> None:
    """For ``fp8``: store the weights as float8_e4m3fn, and cast each layer to ``dtype`` while it runs.

    To be called when LoRAs have been merged, which takes plain weights, and before the transformer is placed:
    group offload with a stream copies the weights when it is set up. Never call ``.to(dtype)`` afterwards: what is
    not cast would lose its precision, and the others would grow back to full size until they run.

    Args:
        transformer: in ``dtype``.
        method: nothing is done for any other than ``fp8``.
        dtype: that of the activations.
    """
    if method == "fp8":
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)


def _restore_last_layer(transformer: HunyuanVideoTransformer3DModel, dtype: torch.dtype) -> None:
    """Put the last layer back as it is in the checkpoint.

    diffusers' integration of bitsandbytes skips modules by the last part of their name, and the last layer shares
    its name with a layer of each single block: 1.9 billion parameters.
    """
    quantized = transformer.get_submodule(_LAST_LAYER)
    weight, bias = (_read(transformer, f"{_LAST_LAYER}.{part}").to(quantized.bias.device, dtype) for part in
                    ("weight", "bias"))  # fmt: skip
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    transformer.set_submodule(_LAST_LAYER, layer.requires_grad_(False).eval())


def _read(transformer: HunyuanVideoTransformer3DModel, name: str) -> torch.Tensor:
    """One parameter from the folder that the model was loaded from."""
    from ..diffusers_private import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME, folder_of

    folder = folder_of(transformer)
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    file = SAFETENSORS_WEIGHTS_NAME
    if index.is_file():
        file = json.loads(index.read_text(encoding="utf-8"))["weight_map"][name]
    with safe_open(folder / file, framework="pt") as weights:
        return cast("torch.Tensor", weights.get_tensor(name))
