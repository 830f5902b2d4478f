"""Attention without a mask: the same numbers as the library's, by any kernel that works here.

The library pads every prompt to 256 tokens and hides the padding behind a key mask, which no fast
kernel takes. With one video at a time the padding can be cut off instead; no mask is left to pass.
All is done to the transformer in hand: no class is changed, and no setting of the process. The parts
are a processor, a forward hook of torch and one of diffusers, which offloading, quantised layers,
layerwise casting and compiled blocks leave in place. A subclass would not do: the library finds what
it knows of a model, such as the scales of a LoRA, by the name of its class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from ...errors import ConfigError
from ..diffusers_private import (
    AttentionBackendName,
    HunyuanVideoAttnProcessor2_0,
    attention_backend,
    dispatch_attention_fn,
    set_processors,
)
from ..memory.device import is_out_of_memory, out_of_memory
from .rotary import rotate_

# Names are the library's, without the underscore that some begin with. Its kernels for text of several
# lengths (varlen) are of no use without a mask, and those for other hardware are left out.
EXACT = ("native", "native_cudnn", "native_flash", "native_efficient", "flash", "flash_3", "xformers")
INEXACT = ("sage",)  # queries and keys in int8
# Fetched from the Hub as programs, so only when asked for by name.
FROM_HUB = ("flash_hub", "flash_3_hub", "flash_4_hub", "sage_hub")
BACKENDS = (*EXACT, *INEXACT, *FROM_HUB)

WhyNot = Callable[[str], str | None]

# A length that is no multiple of a kernel's tile, as with real prompts.
_PROBE_TOKENS = 333
# In half precision a right kernel is off by less than 0.005; one that overlooks a single key, by more than 0.1.
_PROBE_TOLERANCE = 0.05
_ARGUMENTS = tuple(inspect.signature(HunyuanVideoTransformer3DModel.forward).parameters)[1:]


def drop_padding(transformer: HunyuanVideoTransformer3DModel, backend: str) -> None:
    """Let one video's text be cut to its true length and attended to without a mask, by this kernel.

    Equal to the masked attention up to the order of additions. Calls with more than one video in the
    batch keep their padding and their mask, with which kernels other than ``native`` may refuse to run.

    Args:
        transformer: called as a module; calling its ``forward`` directly would leave the padding in.
        backend: one of ``BACKENDS``, of which ``find_problem`` knows no reason against it.
    """
    set_processors(transformer, _MaskFreeProcessor(library_name(backend)))
    transformer.register_forward_pre_hook(_cut_padding, with_kwargs=True)


def choose_backend(requested: str, fastest_first: Sequence[str], why_not: WhyNot) -> str:
    """The kernel to use: the first that works if ``auto`` is requested, else the requested one.

    Args:
        requested: ``auto`` or one of ``BACKENDS``; a leading underscore, as the library has it, is allowed.
        fastest_first: what ``auto`` tries, in this order.
        why_not: why a kernel of ``BACKENDS`` cannot be used here, or None if it can.

    Raises:
        ConfigError: unknown, or of no use here; lists what works, and why the others do not.
    """
    if requested == "auto":
        found = next((name for name in fastest_first if why_not(name) is None), None)
        if found is not None:
            return found
        problem: str | None = "no kernel works here"
    else:
        name = requested.lower().removeprefix("_")
        problem = why_not(name) if name in BACKENDS else "not known"
        if problem is None:
            return name
    reasons = {other: why_not(other) for other in (*EXACT, *INEXACT)}
    working = ", ".join(["auto", *(other for other, reason in reasons.items() if reason is None)])
    others = "; ".join(f"{other}: {reason}" for other, reason in reasons.items() if reason is not None)
    raise ConfigError(
        f"attention_backend={requested!r}: {problem}. Use one that works here: {working}. The others do not "
        f"({others}); {', '.join(FROM_HUB)} fetch their kernel from the Hub when asked for by name"
    )


def fastest_first(capability: tuple[int, int] | None) -> tuple[str, ...]:
    """Exact kernels for a device, the fastest first, as their authors publish it; measured on Hopper alone.

    FlashAttention 3 is written for Hopper (9.0), where ``native`` is ahead of cuDNN's kernel: 1.99 against
    2.23 ms at 10,496 tokens, 297 against 302 at 119,056 (``scripts/gpu_check`` on an H100). From Blackwell
    on cuDNN's is said to be ahead. ``native`` lets torch choose, which without a mask is FlashAttention 2.

    Args:
        capability: CUDA compute capability; None is a CPU.
    """
    if capability is None:
        return ("native",)
    if capability < (9, 0):
        return ("flash", "native")
    if capability < (10, 0):
        return ("flash_3", "native")
    return ("native_cudnn", "flash", "native")


@torch.no_grad()
def find_problem(backend: str, device: str, dtype: torch.dtype, head_dim: int) -> str | None:
    """Why a kernel cannot be used on this device, in a line; None if a small call gives right values.

    Args:
        backend: one of ``BACKENDS``.
        device: ``cpu`` or ``cuda``.
        dtype: that of queries, keys and values.
        head_dim: size of a head, 128 in the 13 B model.

    Raises:
        GpuMemoryError: the device has no room for the call, which says nothing about the kernel.
    """
    if device == "cpu" and backend != "native":
        return "needs a CUDA device"
    generator = torch.Generator().manual_seed(0)
    # [batch, tokens, heads, head_dim]: drawn on the CPU, so that the device's generator is left alone.
    query, key, value = (torch.randn(1, _PROBE_TOKENS, 2, head_dim, generator=generator) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    )
    name = library_name(backend)
    try:
        with attention_backend(name):  # checks what is installed, and fetches a kernel from the Hub
            pass
        found = dispatch_attention_fn(*(x.to(device, dtype) for x in (query, key, value)), backend=name).float().cpu()
    except Exception as error:  # each kernel has errors of its own
        if is_out_of_memory(error):  # to go on with a slower kernel would hide it
            raise out_of_memory(error, "load") from None
        return (str(error).strip() or type(error).__name__).split("\n")[0]
    distance = (found.transpose(1, 2) - expected).abs().max().item()
    return None if distance < _PROBE_TOLERANCE else f"wrong values, off by {distance:.3g}"


def library_name(backend: str) -> AttentionBackendName:
    """The library's name of one of ``BACKENDS``; some of its names begin with an underscore, which ours leave out."""
    known = {name.value for name in AttentionBackendName}
    return AttentionBackendName(backend if backend in known else f"_{backend}")


# The three projections of an attention layer, and the norms of its queries and keys: those of the image, which in
# single-stream blocks are those of the text too, and those of the text in dual-stream blocks.
JOINT_PROJECTIONS = ("to_q", "to_k", "to_v", "norm_q", "norm_k")
TEXT_PROJECTIONS = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")


def project_heads(
    attn: torch.nn.Module, states: torch.Tensor, names: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [B, tokens, heads, head_dim] of states [B, tokens, channels], by the layers' names."""
    query, key, value = (getattr(attn, name)(states).unflatten(2, (attn.heads, -1)) for name in names[:3])
    norm_query, norm_key = (getattr(attn, name) or torch.nn.Identity() for name in names[3:])
    return norm_query(query), norm_key(key), value


def project_out(attn: torch.nn.Module, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What attention found, [B, tokens, channels], through the layers that dual-stream blocks have after it."""
    to_out, to_add_out = getattr(attn, "to_out", None), getattr(attn, "to_add_out", None)
    if to_out is not None:
        image = to_out[1](to_out[0](image))
    if to_add_out is not None:
        text = to_add_out(text)
    return image, text


class _MaskFreeProcessor(HunyuanVideoAttnProcessor2_0):
    """The library's attention; at batch 1, where ``_cut_padding`` leaves nothing to mask, without the mask.

    Queries and keys are rotated where they are, in pieces, and not joined to the text again: the same numbers
    with fewer tensors. Compiled blocks keep the library's way, whose pieces the compiler makes itself.
    """

    def __init__(self, backend: AttentionBackendName):
        super().__init__()
        self._attention_backend = backend

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
        # The first two are calls that this transformer does not make.
        if encoder_hidden_states is None or image_rotary_emb is None or torch.compiler.is_compiling():
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb)
        image_length, text = hidden_states.shape[1], encoder_hidden_states
        single = attn.add_q_proj is None
        projected = torch.cat([hidden_states, text], dim=1) if single else hidden_states
        query, key, value = project_heads(attn, projected, JOINT_PROJECTIONS)
        for part in (query, key):
            rotate_(part[:, :image_length], image_rotary_emb)
        if not single:
            text_query, text_key, text_value = project_heads(attn, text, TEXT_PROJECTIONS)
            # One after another: each tensor is let go when the longer one is there.
            query = torch.cat([query, text_query], dim=1)
            key = torch.cat([key, text_key], dim=1)
            value = torch.cat([value, text_value], dim=1)
        backend = self._attention_backend
        found = dispatch_attention_fn(query, key, value, attn_mask=attention_mask, backend=backend)
        found = found.flatten(2, 3).to(query.dtype)
        return project_out(attn, found[:, :image_length], found[:, image_length:])


def _cut_padding(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """A forward hook of the transformer: at batch 1 the text and its mask without the padded end.

    Raises:
        ValueError: the mask is not ones followed by zeros.
    """
    given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
    mask = given["encoder_attention_mask"]
    if mask.shape[0] == 1:
        # One small copy from the device; the pipeline waits for the device after every step anyway.
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
