"""Splits one transformer's tokens over several processes.

Image and text tokens are both split: of N tokens, each of P processes runs every layer on about N/P. Only
attention needs all tokens. With Ulysses, an all-to-all turns [1, N/P, heads, head_dim] into [1, N, heads/P,
head_dim], so each process attends over all tokens with some of the heads, with any kernel (``exchange``). With ring,
which is diffusers', each process keeps its N/P queries while the keys and values of the other processes pass through
it part by part; the partial outputs ``o_i`` are merged by their log-sum-exp: ``o = sum_i exp(lse_i - lse) o_i``,
``lse = log sum_i exp(lse_i)``.

N need not be divisible by P: parts may have unequal lengths. No mask is needed, since attention does not depend on the
order of the keys. diffusers' hooks split the tensors. This file adds what diffusers lacks: a plan for this
transformer, texts with fewer tokens than processes, the lengths of the parts, the input image's share of them, and ring
on a CPU. Knows nothing about how the processes are started.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, HunyuanVideoTransformer3DModel

from ..diffusers_private import (
    ContextParallelInput,
    ModelHook,
    ParallelConfig,
    TemplatedRingAnythingAttention,
    add_hook,
    apply_context_parallel,
    dispatch_attention_fn,
    has_context_parallel,
    known_lengths,
    set_processors,
)
from ..process_group import ProcessGroup
from ..torch_private import attend_on_cpu
from .exchange import own_heads, part_lengths, to_heads, to_tokens
from .fallback import FALLBACKS, AttentionKernel
from .kernels import is_in_library, library_name
from .projections import JoinedProcessor, project_out

_TOKENS = ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)
_ROTARY = ContextParallelInput(split_dim=0, expected_dims=2, split_output=True)
# The split is at the embedders, not at the first block, because the step caches hook that block and compare and
# keep its input. ``_Whole`` gathers the output.
PLAN = {
    "rope": {0: _ROTARY, 1: _ROTARY},
    "x_embedder": {0: _TOKENS},
    "context_embedder": {0: _TOKENS},
}
# Ring needs the log-sum-exp of each row, which these return.
_RING_FALLBACKS = ("native_flash",)


def why_no_context_parallel(backend: str, mode: str, device: str) -> str | None:
    """Why an attention kernel does not support context parallelism; None if it does.

    Args:
        backend: one of ``config.kernels.BACKENDS``.
        mode: ``ulysses``, for every kernel; or ``ring``, which needs the log-sum-exp of each row to merge outputs.
        device: ``cpu`` or ``cuda``.
    """
    if mode == "ulysses" or (backend == "native" and device == "cpu"):
        return None
    if not is_in_library(backend) or not has_context_parallel(library_name(backend)):
        return "diffusers has no ring attention for it"
    return "it does not return the log-sum-exp that ring needs" if backend == "native" else None


def split_tokens(
    transformer: HunyuanVideoTransformer3DModel,
    process_group: ProcessGroup,
    kernel: AttentionKernel,
    backend: str,
    device: torch.device,
) -> None:
    """Let a transformer run on this process's part of the tokens; every process gets the whole output.

    All ranks must call this, and from then on call the transformer together with the same inputs: one video
    per call, its text without padding (``mask_free.drop_padding``).

    Args:
        transformer: loaded and placed; the hooks of its placement must already be set.
        process_group: all ranks.
        kernel: the transformer's kernel, which becomes ``backend``.
        backend: an attention kernel for which ``why_no_context_parallel`` returns None, the same on all ranks.
        device: where the transformer computes.
    """
    ulysses, heads = process_group.shared.mode == "ulysses", transformer.config.num_attention_heads
    kernel.share(
        backend,
        heads=own_heads(heads, process_group) if ulysses else heads,
        parts=1 if ulysses else process_group.size,
        fallbacks=FALLBACKS if ulysses else _RING_FALLBACKS,
        agree=lambda problem: next((found for found in process_group.gather(problem) if found is not None), None),
    )
    config = ContextParallelConfig(
        ulysses_degree=process_group.size if ulysses else 1, ulysses_anything=ulysses,
        ring_degree=1 if ulysses else process_group.size, ring_anything=not ulysses,
    )  # fmt: skip
    # ``enable_parallelism`` does the same but fails without an accelerator: it divides by the number of devices.
    parallel = ParallelConfig(context_parallel_config=config)
    parallel.setup(process_group.rank, process_group.size, device, mesh=process_group.mesh)
    parts = _Parts()
    set_processors(transformer, SplitAttention(kernel, process_group, parallel, parts))
    # Registered before the plan's own hooks: these see the tensors before the plan splits them.
    add_hook(transformer.x_embedder, _MeasuredImage(process_group, parts), "measured_image")
    add_hook(transformer.context_embedder, _LongEnough(process_group, parts), "long_enough")
    apply_context_parallel(transformer, config, PLAN)
    add_hook(transformer.proj_out, _Whole(process_group, parts), "whole")
    if transformer.config.image_condition_type == "token_replace":
        count = functools.partial(_count_own_tokens, parts=parts, rank=process_group.rank)
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
            block.register_forward_pre_hook(count)


@dataclass
class _Parts:
    """Number of image and text tokens of each process in the current call, the same in all processes.

    A process without text holds one padding token, which takes no part in the attention and counts 0.
    """

    image: list[int] = field(default_factory=list)
    text: list[int] = field(default_factory=list)

    @property
    def joint(self) -> list[int]:
        """Image and text tokens of each process."""
        return [image + text for image, text in zip(self.image, self.text, strict=True)]


def _count_own_tokens(block: torch.nn.Module, args: tuple[Any, ...], parts: _Parts, rank: int) -> tuple[Any, ...]:
    """Forward pre-hook of the blocks with ``token_replace``: of the first frame's tokens, count those of this process.

    It is the last argument: how many of its first tokens a block modulates as the input image.
    """
    *others, tokens = args
    before = sum(parts.image[:rank])
    return (*others, min(max(tokens - before, 0), parts.image[rank]))


class SplitAttention(JoinedProcessor):
    """diffusers' attention, on this process's part of image and text."""

    _parallel_config: ParallelConfig

    def __init__(self, kernel: AttentionKernel, process_group: ProcessGroup, parallel: ParallelConfig, parts: _Parts):
        super().__init__()
        self._kernel, self._team, self._parts = kernel, process_group, parts
        self._parallel_config = parallel

    def __call__(
        self,
        attn: torch.nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend; shapes [1, tokens, channels] in and out. The mask is ignored: it hides nothing here.

        Raises:
            ValueError: more than one video in the batch; only a mask could hide their padding.
        """
        if hidden_states.shape[0] != 1:
            raise ValueError(f"context parallelism supports one video per call, not {hidden_states.shape[0]}")
        assert image_rotary_emb is not None  # this transformer passes it to all blocks
        image_length, text = len(image_rotary_emb[0]), encoder_hidden_states
        # A process without text holds one padding token, which takes no part in the attention.
        has_text = self._parts.text[self._team.rank] > 0
        image = hidden_states if has_text else hidden_states[:, :image_length]
        query, key, value = self.project(attn, image, text if has_text else None, image_rotary_emb)
        found = self._attend(query, key, value).flatten(2, 3).to(query.dtype)
        del query, key, value  # not needed by the output projections
        if text is None:  # the padding token, if there is one, gets zeros
            return torch.nn.functional.pad(found, (0, 0, 0, hidden_states.shape[1] - found.shape[1])), None
        found_text = found[:, image_length:] if has_text else torch.zeros_like(text)
        return project_out(attn, found[:, :image_length], found_text)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        lengths = self._parts.joint
        if self._team.shared.mode == "ulysses":
            whole = self._kernel(*to_heads(query, key, value, lengths, self._team))
            return to_tokens(whole, query.shape[2], lengths, self._team)
        parallel = self._parallel_config
        found: torch.Tensor
        with known_lengths(lengths):
            if query.device.type == "cpu":
                # diffusers' CPU kernel returns no log-sum-exp; torch has one that does.
                found = TemplatedRingAnythingAttention.apply(
                    query, key, value, None, 0.0, False, None, False, False, _attend_on_cpu, None, parallel
                )
            else:
                backend = library_name(self._kernel.name)
                found = dispatch_attention_fn(query, key, value, backend=backend, parallel_config=parallel)
        return found


class _MeasuredImage(ModelHook):
    """Computes how many image tokens each process gets."""

    def __init__(self, process_group: ProcessGroup, parts: _Parts):
        super().__init__()
        self._team, self._parts = process_group, parts

    def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        self._parts.image = part_lengths(output.shape[1], self._team.size)
        return output


class _LongEnough(ModelHook):
    """Pads a text that has fewer tokens than there are processes with zero tokens, so that each process has one.

    diffusers cannot split off empty parts, and the blocks cannot process them. The padding takes no part in the
    attention and is dropped with the text at the end. Computes how many text tokens each process gets.
    """

    def __init__(self, process_group: ProcessGroup, parts: _Parts):
        super().__init__()
        self._team, self._parts = process_group, parts

    def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        length, size = output.shape[1], self._team.size
        self._parts.text = part_lengths(length, size)
        return torch.nn.functional.pad(output, (0, 0, 0, max(0, size - length)))


class _Whole(ModelHook):
    """Gathers the output in every process; unlike diffusers' gather, also works for unequal parts over gloo."""

    def __init__(self, process_group: ProcessGroup, parts: _Parts):
        super().__init__()
        self._team, self._parts = process_group, parts

    def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        lengths = self._parts.image
        padded = torch.nn.functional.pad(output, (0, 0, 0, max(lengths) - output.shape[1]))
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded, group=self._team.group)
        return torch.cat([part[:, :length] for part, length in zip(parts, lengths, strict=True)], dim=1)


def _attend_on_cpu(
    ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in the form of diffusers' ring: output [1, n, heads, head_dim] and log-sum-exp [1, n, heads]."""
    found, log_sum = attend_on_cpu(*(x.transpose(1, 2) for x in (query, key, value)))
    return found.transpose(1, 2), log_sum.transpose(1, 2)
