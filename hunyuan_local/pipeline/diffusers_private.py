"""All uses of undocumented parts of diffusers, in one place: an upgrade may change or remove them.

Tested with 0.42.1; 0.42 is the first supported series. ``tests/test_private_members.py`` names each member and fails
if one is gone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.hooks import HookRegistry, apply_context_parallel
from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from diffusers.hooks.group_offloading import _GROUP_OFFLOADING, ModuleGroup
from diffusers.models import attention_dispatch
from diffusers.models._modeling_parallel import ContextParallelInput, ParallelConfig
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    TemplatedRingAnythingAttention,
    _AttentionBackendRegistry,
    attention_backend,
    dispatch_attention_fn,
)
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_hunyuan_video import (
    HunyuanVideoSingleTransformerBlock,
    HunyuanVideoTokenReplaceSingleTransformerBlock,
    HunyuanVideoTokenReplaceTransformerBlock,
    HunyuanVideoTransformerBlock,
)
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME

if TYPE_CHECKING:
    # Type checkers do not read diffusers here; these are the members of its classes that our subclasses use.
    class ModelHook:
        _is_stateful: bool
        fn_ref: Any

        def __init__(self) -> None: ...
        def post_forward(self, module: torch.nn.Module, output: Any) -> Any: ...
        def reset_state(self, module: torch.nn.Module) -> torch.nn.Module: ...

    class HunyuanVideoCausalConv3d(torch.nn.Module):
        conv: torch.nn.Conv3d
        pad_mode: str
        time_causal_padding: tuple[int, int, int, int, int, int]

    class HunyuanVideoUpsampleCausal3D(torch.nn.Module):
        conv: HunyuanVideoCausalConv3d
        upsample_factor: tuple[int, int, int]

    class HunyuanVideoAttnProcessor2_0:
        _attention_backend: AttentionBackendName | None
        _parallel_config: ParallelConfig | None

        def __init__(self) -> None: ...
        def __call__(
            self, attn: torch.nn.Module, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor | None]: ...
else:
    from diffusers.hooks import ModelHook
    from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
        HunyuanVideoCausalConv3d,
        HunyuanVideoUpsampleCausal3D,
    )
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0

__all__ = [
    "SAFETENSORS_WEIGHTS_NAME",
    "SAFE_WEIGHTS_INDEX_NAME",
    "AttentionBackendName",
    "ContextParallelInput",
    "HunyuanVideoAttnProcessor2_0",
    "HunyuanVideoCausalConv3d",
    "HunyuanVideoSingleTransformerBlock",
    "HunyuanVideoTokenReplaceSingleTransformerBlock",
    "HunyuanVideoTokenReplaceTransformerBlock",
    "HunyuanVideoTransformerBlock",
    "HunyuanVideoUpsampleCausal3D",
    "KeptForward",
    "ModelHook",
    "ModuleGroup",
    "ParallelConfig",
    "QuantizationConfigMixin",
    "RMSNorm",
    "TemplatedRingAnythingAttention",
    "add_hook",
    "apply_context_parallel",
    "attention_backend",
    "dequantize_gguf",
    "dispatch_attention_fn",
    "first_block_hook",
    "folder_of",
    "groups_of",
    "has_context_parallel",
    "is_in_4_bits",
    "is_in_8_bits",
    "known_lengths",
    "read_gguf",
    "replace_forward",
    "set_backend",
    "set_processors",
    "tensors_of_group",
    "to_diffusers_names",
]


class KeptForward(ModelHook):
    """A hook that replaces a module's ``forward`` (with ``new_forward``); the pipeline resets it with its caches.

    Relies on ``ModelHook._is_stateful``, ``reset_state`` and ``fn_ref.original_forward``.
    """

    _is_stateful = True

    def original_forward(self, *args: Any) -> Any:
        """The module's original ``forward``."""
        return self.fn_ref.original_forward(*args)


def first_block_hook(block: torch.nn.Module) -> FBCHeadBlockHook:
    """The first-block cache's hook on the first block, from ``_diffusers_hook``; its ``threshold`` can be set.

    From then on the hook skips a step only if the change is a number of at most ``threshold``. diffusers computes if
    ``change > threshold``, which is false for NaN: it skips, and fails if there is nothing to reuse yet. Replaces
    ``_should_compute_remaining_blocks``, which reads ``state_manager`` and ``head_block_residual``.
    """
    registry: Any = block._diffusers_hook
    hooks = registry.hooks.values()
    head = next(hook for hook in hooks if isinstance(hook, FBCHeadBlockHook))

    def should_compute(residual: torch.Tensor) -> bool:
        state = head.state_manager.get_state()
        before: torch.Tensor | None = state.head_block_residual
        if head.threshold < 0 or before is None or state.tail_block_residuals is None:
            return True
        change = ((residual - before).abs().mean() / before.abs().mean()).item()
        return not change <= head.threshold

    not_compiled: Any = torch.compiler.disable
    head._should_compute_remaining_blocks = not_compiled(should_compute)
    return head


def add_hook(module: torch.nn.Module, hook: ModelHook, name: str) -> None:
    """Add a hook to a module with ``HookRegistry``; the hook added last runs first."""
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)


def replace_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> None:
    """Replace a module's own ``forward`` by ``forward(module, ...)``, below the hooks that it has or will get.

    Relies on ``HookRegistry._fn_refs``, in which the first hook holds the module's own ``forward``, and on accelerate's
    ``_old_forward``.
    """
    own = functools.update_wrapper(functools.partial(forward, module), type(module).forward)
    layer: Any = module
    registry: Any = getattr(module, "_diffusers_hook", None)
    if registry is not None and registry._fn_refs:
        innermost = registry._fn_refs[0]
        setattr(innermost, "forward" if innermost.original_forward is None else "original_forward", own)
    elif hasattr(module, "_old_forward"):
        layer._old_forward = own
    else:
        layer.forward = own


def groups_of(module: torch.nn.Module) -> tuple[ModuleGroup | None, list[ModuleGroup]]:
    """The groups of a module under group offload: what is outside its blocks, if anything, and the others in order.

    The first is the group of the hook on the module itself, which diffusers creates without a stream.
    """
    registries: dict[torch.nn.Module, Any] = {part: getattr(part, "_diffusers_hook", None) for part in module.modules()}
    hooks = {part: found.get_hook(_GROUP_OFFLOADING) for part, found in registries.items() if found is not None}
    own = hooks.pop(module, None)
    groups = [hook.group for hook in hooks.values() if hook is not None]
    return None if own is None else own.group, list(dict.fromkeys(groups))


def tensors_of_group(group: ModuleGroup) -> list[torch.Tensor]:
    """The parameters and buffers of one group, from its ``modules``, ``parameters`` and ``buffers``."""
    inside = [tensor for part in group.modules for tensor in (*part.parameters(), *part.buffers())]
    return [*inside, *group.parameters, *group.buffers]


def set_processors(transformer: HunyuanVideoTransformer3DModel, processor: HunyuanVideoAttnProcessor2_0) -> None:
    """Replace diffusers' attention processor with ``processor`` in every block.

    Relies on the attribute ``processor`` and on its class, whose calls read ``_attention_backend`` and
    ``_parallel_config``.
    """
    for module in transformer.modules():
        if isinstance(getattr(module, "processor", None), HunyuanVideoAttnProcessor2_0):
            module.set_processor(processor)


def set_backend(transformer: HunyuanVideoTransformer3DModel, backend: AttentionBackendName) -> None:
    """Set the kernel that diffusers' attention code calls, ``_attention_backend``, in every block."""
    for module in transformer.modules():
        processor = getattr(module, "processor", None)
        if isinstance(processor, HunyuanVideoAttnProcessor2_0):
            processor._attention_backend = backend


def has_context_parallel(backend: AttentionBackendName) -> bool:
    """Whether a kernel supports context parallelism, from ``_AttentionBackendRegistry``."""
    return cast("bool", _AttentionBackendRegistry._is_context_parallel_available(backend))


@contextlib.contextmanager
def known_lengths(lengths: list[int]) -> Iterator[None]:
    """Inside, ring attention uses these lengths of all ranks' parts; diffusers gathers them in every layer.

    Replaces ``attention_dispatch.gather_size_by_comm``.
    """
    dispatch: Any = attention_dispatch
    gather = dispatch.gather_size_by_comm
    dispatch.gather_size_by_comm = lambda size, group: lengths
    try:
        yield
    finally:
        dispatch.gather_size_by_comm = gather


def folder_of(transformer: HunyuanVideoTransformer3DModel) -> Path:
    """The folder that a model was loaded from, from ``config._name_or_path``."""
    return Path(transformer.config._name_or_path)


def is_in_4_bits(module: torch.nn.Module) -> bool:
    """Whether bitsandbytes holds a module's weights in 4 bits, from the flag that the loader sets."""
    return bool(getattr(module, "is_loaded_in_4bit", False))


def is_in_8_bits(module: torch.nn.Module) -> bool:
    """Whether bitsandbytes holds a module's weights in 8 bits, from the flag that the loader sets."""
    return bool(getattr(module, "is_loaded_in_8bit", False))


def read_gguf(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a GGUF file as stored, read with ``load_gguf_checkpoint``; needs the extra ``quant``."""
    from diffusers.models.model_loading_utils import load_gguf_checkpoint

    return cast("dict[str, torch.Tensor]", load_gguf_checkpoint(str(path)))


def dequantize_gguf(tensor: torch.Tensor) -> torch.Tensor:
    """The values of one tensor of :func:`read_gguf`, from ``dequantize_gguf_tensor``."""
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    return cast("torch.Tensor", dequantize_gguf_tensor(tensor))


def to_diffusers_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename tensors of the original checkpoint to diffusers' names; empties ``tensors``."""
    from diffusers.loaders.single_file_utils import convert_hunyuan_video_transformer_to_diffusers

    return cast("dict[str, torch.Tensor]", convert_hunyuan_video_transformer_to_diffusers(tensors))
