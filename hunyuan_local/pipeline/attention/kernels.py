"""How to call each attention kernel of ``config.kernels``: ``softmax(q k^T / sqrt(head_dim)) v`` without a mask.

Kernels of torch are called on views of the tensors: diffusers copies queries, keys and values for cuDNN.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..diffusers_private import AttentionBackendName, dispatch_attention_fn
from ..memory.device import nvidia_capability

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

_FLASH = (SDPBackend.FLASH_ATTENTION,)
# torch takes the first that supports the tensors. Its own order puts cuDNN first only from 9.0 on and with cuDNN 9.16
# or newer; FlashAttention 2 is 1.6 times as slow on an H100. ``MATH`` serves devices without a fused kernel.
_CUDNN_FIRST = (SDPBackend.CUDNN_ATTENTION, *_FLASH, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
_FLASH_FIRST = (*_FLASH, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
_OF_TORCH = {
    "native_cudnn": (SDPBackend.CUDNN_ATTENTION,), "native_flash": _FLASH,
    "native_efficient": (SDPBackend.EFFICIENT_ATTENTION,), "torch_flash_3": _FLASH, "torch_flash_4": _FLASH,
}  # fmt: skip
_IMPLEMENTATIONS = {"torch_flash_3": "FA3", "torch_flash_4": "FA4"}


def attend(
    name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention by one kernel.

    Args:
        name: one of ``config.kernels.BACKENDS``.
        query, key, value: [B, tokens, heads, head_dim]; the last dimension contiguous, the others need not be.
        mask: [B, 1, 1, tokens], only for ``native``.

    Returns:
        [B, tokens, heads, head_dim].

    Raises:
        Exception: the kernel is not installed or does not support the tensors; each kernel raises different errors.
    """
    if name == "native" or name in _OF_TORCH:
        return _by_torch(name, query, key, value, mask)
    if mask is not None:
        raise ValueError(f"attention_backend={name!r}: supports no mask; use native")
    if name in _OWN:
        return _OWN[name](query, key, value)
    found: torch.Tensor = dispatch_attention_fn(query, key, value, backend=library_name(name))
    return found


def library_name(backend: str) -> AttentionBackendName:
    """diffusers' name of a kernel, with the leading underscore if it has one; see :func:`is_in_library`."""
    known = {name.value for name in AttentionBackendName}
    return AttentionBackendName(backend if backend in known else f"_{backend}")


def is_in_library(backend: str) -> bool:
    """Whether diffusers has a kernel of ``config.kernels.BACKENDS``, so that its own attention code can call it."""
    return {backend, f"_{backend}"} & {name.value for name in AttentionBackendName} != set()


def order_of_torch(name: str, device: torch.device) -> tuple[SDPBackend, ...]:
    """The kernels from which torch chooses, in this order; empty for torch's default and for other libraries' kernels.

    Args:
        name: one of ``config.kernels.BACKENDS``.
        device: of the tensors. On a CPU torch's default for ``native`` stays, so that frames equal stock diffusers',
            and on AMD's GPUs, whose torch has other kernels.
    """
    if name != "native":
        return _OF_TORCH.get(name, ())
    capability = nvidia_capability(device)
    if capability is None:
        return ()
    return _CUDNN_FIRST if capability >= (9, 0) else _FLASH_FIRST


def _by_torch(
    name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    order = order_of_torch(name, query.device)
    chosen = sdpa_kernel(list(order), set_priority=True) if order else contextlib.nullcontext()
    with chosen, _implementation(name):
        found = torch.nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask
        )
    return found.transpose(1, 2)


@contextlib.contextmanager
def _implementation(name: str) -> Iterator[None]:
    """Let torch call the package of ``torch_flash_3`` or ``torch_flash_4`` for its flash kernel, only inside.

    Raises:
        RuntimeError: this version of torch cannot.
        ImportError: the package is not installed.
    """
    wanted = _IMPLEMENTATIONS.get(name)
    if wanted is None:
        yield
        return
    attention = torch.nn.attention
    if not all(hasattr(attention, f"{verb}_flash_attention_impl") for verb in ("activate", "current", "restore")):
        raise RuntimeError(f"torch {torch.__version__} cannot call it; update torch")
    before = attention.current_flash_attention_impl()
    try:
        if before != wanted:
            attention.activate_flash_attention_impl(wanted)
        yield
    finally:
        now = attention.current_flash_attention_impl()
        if before is not None and before != now:
            attention.activate_flash_attention_impl(before)
        elif before is None and now is not None:
            attention.restore_flash_attention_impl()


def _flash_4(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """FlashAttention 4, from the package ``flash-attn-4``; also returns the log-sum-exp, depending on its version."""
    found = importlib.import_module("flash_attn.cute").flash_attn_func(query, key, value)
    output: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return output


def _sage_3(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """SageAttention 3, from the package ``sageattn3``; it changes its keys, which the copies protect."""
    kernel = importlib.import_module("sageattn3").sageattn3_blackwell
    found: torch.Tensor = kernel(*(x.transpose(1, 2).contiguous() for x in (query, key, value)), is_causal=False)
    return found.transpose(1, 2)


_OWN: dict[str, Attention] = {"flash_4": _flash_4, "sage_3": _sage_3}
