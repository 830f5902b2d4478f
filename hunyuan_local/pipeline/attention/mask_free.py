"""Attention without a mask: the same result as diffusers' masked attention, with any kernel that works here.

diffusers pads every prompt to 256 tokens and hides the padding with a key mask, which no fast kernel
supports. A masked key has softmax weight 0, so for one video at a time cutting off the padding gives the same
result: ``softmax(q k^T / sqrt(head_dim)) v`` over the real tokens only.

Only this transformer instance changes: an attention processor, a torch forward hook and a diffusers hook.
These keep working under offloading, quantization, layerwise casting and compiled blocks. A subclass would
not work, because diffusers looks up model-specific behavior, such as LoRA scales, by class name.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from ..diffusers_private import set_processors
from .fallback import AttentionKernel, check_at_each_length
from .kernels import is_in_library, library_name
from .projections import JoinedProcessor, project_out

_ARGUMENTS = tuple(inspect.signature(HunyuanVideoTransformer3DModel.forward).parameters)[1:]


def drop_padding(transformer: HunyuanVideoTransformer3DModel, backend: str) -> AttentionKernel:
    """Cut one video's text to its true length and attend without a mask, with the given kernel.

    Equal to masked attention up to the order of additions. Calls with more than one video in the batch
    keep their padding and mask, and use ``native``.

    Args:
        transformer: call it as a module; calling its ``forward`` directly would keep the padding.
        backend: one of ``config.kernels.BACKENDS`` for which ``find_problem`` returns None.

    Returns:
        The kernel in all blocks; it is probed at each new length, and may be replaced.
    """
    kernel = AttentionKernel(backend, transformer.config.num_attention_heads)
    set_processors(transformer, _MaskFreeProcessor(kernel))
    transformer.register_forward_pre_hook(_cut_padding, with_kwargs=True)
    check_at_each_length(transformer, kernel)
    return kernel


class _MaskFreeProcessor(JoinedProcessor):
    """diffusers' attention; at batch 1, where ``_cut_padding`` has removed all padding, it ignores the mask.

    Compiled blocks use diffusers' code, which the compiler fuses itself.
    """

    def __init__(self, kernel: AttentionKernel):
        super().__init__()
        self._kernel = kernel
        # For diffusers' code; see ``fallback.use_in_compiled_blocks``.
        self._attention_backend = library_name(kernel.name if is_in_library(kernel.name) else "native")

    def __call__(
        self,
        attn: torch.nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if hidden_states.shape[0] == 1:
            attention_mask = None
        # This transformer always passes rotary tables; other calls go to diffusers' code.
        if image_rotary_emb is None or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        query, key, value = self.project(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        found = self._kernel(query, key, value, attention_mask).flatten(2, 3).to(query.dtype)
        del query, key, value  # not needed by the output projections
        if encoder_hidden_states is None:
            return found, None
        image_length = hidden_states.shape[1]
        return project_out(attn, found[:, :image_length], found[:, image_length:])


def _cut_padding(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """Forward pre-hook of the transformer: at batch 1, cut the padding off the text and its mask.

    Raises:
        ValueError: the mask is not ones followed by zeros.
    """
    given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
    mask = given["encoder_attention_mask"]
    if mask.shape[0] == 1:
        # One small copy from the device; the pipeline synchronizes after every step anyway.
        seen = mask[0].bool().tolist()
        length = sum(seen)
        if length == 0 or not all(seen[:length]):
            raise ValueError(
                f"encoder_attention_mask={''.join(str(int(x)) for x in seen)}: must be ones and then zeros, with at "
                "least one 1; use a tokenizer that pads on the right"
            )
        given["encoder_hidden_states"] = given["encoder_hidden_states"][:, :length]
        given["encoder_attention_mask"] = mask[:, :length]
    return (), given
