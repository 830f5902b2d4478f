"""The attention kernel of one loaded model: probed at the length of each video, and replaced if it fails.

Kernels that are correct for short tensors have been wrong from 100,000 tokens on, so the probe of ``kernel_choice`` at
load is not enough.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch.nn.attention import sdpa_kernel

from ...errors import ConfigError, first_line
from ..diffusers_private import set_backend
from ..memory.device import is_out_of_memory
from .kernel_choice import probe
from .kernels import attend, is_in_library, library_name, order_of_torch

# ``native`` is whatever torch chooses, also the kernel that failed; the others are one kernel each.
FALLBACKS = ("native", "native_flash", "native_efficient")

Agree = Callable[[str | None], str | None]


class AttentionKernel:
    """Computes attention with one kernel, and with another from the first call on in which that one fails.

    Args:
        name: one of ``config.kernels.BACKENDS`` for which ``kernel_choice.find_problem`` returns None.
        heads: attention heads of one call.

    Attributes:
        name: the kernel in use.
        recoveries: a sentence for each kernel that was replaced. They apply to every video from then on.
    """

    def __init__(self, name: str, heads: int):
        self.name, self.recoveries = name, list[str]()
        self._heads, self._parts = heads, 1
        self._fallbacks: tuple[str, ...] = FALLBACKS
        self._agree: Agree = lambda problem: problem
        self._note: Callable[[str], None] = lambda text: None
        self._probed: set[tuple[str, int, torch.device]] = set()

    def share(self, name: str, heads: int, parts: int, fallbacks: tuple[str, ...], agree: Agree) -> None:
        """Become the kernel of one of several processes that run a model together.

        Args:
            name: the kernel that all of them use.
            heads: attention heads of one call in this process.
            parts: number of parts into which the tokens are split; 1 if each call attends over all of them.
            fallbacks: kernels that may replace it, in this order.
            agree: returns the same problem in all processes, or None if none of them has one.
        """
        self.name, self._heads, self._parts, self._fallbacks, self._agree = name, heads, parts, fallbacks, agree

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attention as in :func:`.kernels.attend`; a mask, which few kernels support, needs ``native``.

        Raises:
            Exception: the error of the kernel in use, if every other kernel fails too; or memory ran out.
        """
        if mask is not None:
            return attend("native", query, key, value, mask)
        failure: Exception | None = None
        for name in self._candidates():
            try:
                found = attend(name, query, key, value)
            except Exception as error:  # each kernel raises different errors
                if is_out_of_memory(error):  # a fallback would hide the shortage
                    raise
                failure = failure or error.with_traceback(None)  # whose frames would keep the tensors alive
                continue
            if failure is not None:
                self._replace(name, first_line(failure))
            return found
        assert failure is not None  # there is at least one candidate
        raise failure

    def check(self, tokens: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> None:
        """Probe the kernel at this length, once per length, and replace it if its values are wrong.

        ``native`` on a CPU needs no probe: it is what others are compared with.

        Args:
            tokens: image and text tokens of the whole video.
            head_dim: channels per head.
            device, dtype: of queries, keys and values.

        Raises:
            ConfigError: neither the kernel nor any fallback gives correct values.
        """
        if (self.name == "native" and device.type != "cuda") or (self.name, tokens, device) in self._probed:
            return
        shape = (1, -(-tokens // self._parts), self._heads, head_dim)
        problems: list[str] = []
        for name in self._candidates():
            problem = self._agree(_problem(name, shape, device, dtype))
            if problem is None:
                if problems:
                    self._replace(name, problems[0])
                self._probed.add((name, tokens, device))
                return
            problems.append(f"{name}: {problem}")
        raise ConfigError(
            f"attention_backend={self.name!r}: no kernel works for this video ({'; '.join(problems)}); use a smaller "
            "size or fewer frames, or update torch and the driver"
        )

    @contextlib.contextmanager
    def reporting(self, note: Callable[[str], None]) -> Iterator[None]:
        """Send the recoveries to ``note``: those of earlier videos, which still apply, and those that happen inside."""
        for text in self.recoveries:
            note(text)
        self._note = note
        try:
            yield
        finally:
            self._note = lambda text: None

    def _candidates(self) -> list[str]:
        return list(dict.fromkeys((self.name, *self._fallbacks)))

    def _replace(self, name: str, problem: str) -> None:
        text = f"attention kernel {self.name} failed ({problem.removeprefix(f'{self.name}: ')}); used {name} instead"
        self.name = name
        self.recoveries.append(text)
        self._note(text)


def check_at_each_length(transformer: HunyuanVideoTransformer3DModel, kernel: AttentionKernel) -> None:
    """Probe the kernel before the first step of each length; the padding must be cut off before (``mask_free``)."""
    config = transformer.config

    def check(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latents, text = kwargs["hidden_states"], kwargs["encoder_hidden_states"]
        if latents.shape[0] != 1:
            return  # these calls keep their mask
        frames, rows, columns = latents.shape[2:]
        image = (frames // config.patch_size_t) * (rows // config.patch_size) * (columns // config.patch_size)
        kernel.check(image + text.shape[1], config.attention_head_dim, latents.device, latents.dtype)

    transformer.register_forward_pre_hook(check, with_kwargs=True)


def use_in_compiled_blocks(transformer: HunyuanVideoTransformer3DModel, kernel: AttentionKernel) -> None:
    """Let compiled blocks, which run diffusers' attention code, use the kernel.

    torch's order of kernels is set around the whole forward pass: torch chooses one while the compiler traces it. If
    the kernel is replaced, the blocks are compiled again; an error of a kernel inside compiled code ends the run.

    Args:
        transformer: its processors call diffusers if they are compiled.
        kernel: one for which :func:`why_not_compiled` returns None.
    """
    opened = contextlib.ExitStack()

    def enter(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        device = kwargs["hidden_states"].device
        order = order_of_torch(kernel.name, device)
        set_backend(transformer, library_name("native" if order else kernel.name))
        if order:
            opened.enter_context(sdpa_kernel(list(order), set_priority=True))

    def leave(module: torch.nn.Module, args: tuple[Any, ...], output: object) -> None:
        opened.close()

    transformer.register_forward_pre_hook(enter, with_kwargs=True)
    transformer.register_forward_hook(leave, always_call=True)


def why_not_compiled(name: str) -> str | None:
    """Why a kernel cannot be used in compiled blocks; None if it can."""
    return None if is_in_library(name) else "compiled blocks cannot call it; use compile: false"


def _problem(name: str, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> str | None:
    try:
        return probe(name, shape, device, dtype)
    except Exception as error:  # each kernel raises different errors
        if is_out_of_memory(error):
            raise
        return first_line(error)
