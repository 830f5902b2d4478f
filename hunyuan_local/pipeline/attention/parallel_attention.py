"""One transformer's tokens shared out over several processes, by diffusers' context parallelism.

Image and text tokens are both split, so each process runs every layer on its part of them; only the
attention sees all, by Ulysses (each process attends with all tokens to a part of the heads) or ring (each
attends with its own tokens to everybody's keys, part by part). No length has to divide by the number of
processes: diffusers' ``ulysses_anything`` and ``ring_anything`` take parts of unequal length, and no mask is
needed, since attention does not mind in which order keys come. What diffusers lacks is here: a plan for this
transformer, texts of fewer tokens than processes, and ring on a CPU. Knows nothing about how processes start.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, HunyuanVideoTransformer3DModel

from ..diffusers_private import (
    AttentionBackendName,
    ContextParallelInput,
    HunyuanVideoAttnProcessor2_0,
    ModelHook,
    ParallelConfig,
    TemplatedRingAnythingAttention,
    add_hook,
    apply_context_parallel,
    dispatch_attention_fn,
    gather_size_by_comm,
    group_of,
    has_context_parallel,
    set_processors,
)
from ..process_group import ProcessGroup
from ..torch_private import attend_on_cpu
from .kernel_choice import library_name
from .mask_free import JOINT_PROJECTIONS, TEXT_PROJECTIONS, project_heads, project_out
from .rotary import rotate_

_TOKENS = ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)
_ROTARY = ContextParallelInput(split_dim=0, expected_dims=2, split_output=True)
# Split where the tokens are made rather than at the first block: the step caches hook that block, and compare
# and keep what goes into it.
# The output is made whole again by ``_Whole``.
PLAN = {
    "rope": {0: _ROTARY, 1: _ROTARY},
    "x_embedder": {0: _TOKENS},
    "context_embedder": {0: _TOKENS},
}


def why_no_context_parallel(backend: str, mode: str, device: str) -> str | None:
    """Why an attention kernel cannot be used by several processes together; None if it can.

    Args:
        backend: one of ``attention.BACKENDS``.
        mode: ``ulysses`` or ``ring``; ring needs the log-sum-exp of each row, to join parts.
        device: ``cpu`` or ``cuda``.
    """
    if not has_context_parallel(library_name(backend)):
        return "diffusers has no context parallelism for it"
    if mode == "ring" and backend == "native" and device != "cpu":
        return "it does not give the log-sum-exp that ring needs"
    return None


def split_tokens(
    transformer: HunyuanVideoTransformer3DModel, process_group: ProcessGroup, backend: str, device: torch.device
) -> None:
    """Let a transformer run on this process's part of the tokens; its output is whole again, in every process.

    The whole group must call it, and from then on call the transformer together, with the same inputs: one video
    a call, its text without padding (``attention.drop_padding``).

    Args:
        transformer: loaded and placed; whatever hooks its placement needs must be there already.
        process_group: the processes.
        backend: an attention kernel without a reason in ``why_no_context_parallel``.
        device: where the transformer computes.
    """
    ulysses = process_group.shared.mode == "ulysses"
    config = ContextParallelConfig(
        ulysses_degree=process_group.size if ulysses else 1, ulysses_anything=ulysses,
        ring_degree=1 if ulysses else process_group.size, ring_anything=not ulysses,
    )  # fmt: skip
    # ``enable_parallelism`` does the same, but cannot be called where there is no accelerator: it divides by
    # their number.
    parallel = ParallelConfig(context_parallel_config=config)
    parallel.setup(process_group.rank, process_group.size, device, mesh=process_group.mesh)
    processor = SplitAttention(library_name(backend), parallel)
    set_processors(transformer, processor)
    # Before the plan's own hook, which then splits what this one has made long enough.
    add_hook(transformer.context_embedder, _LongEnough(process_group, processor), "long_enough")
    apply_context_parallel(transformer, config, PLAN)
    add_hook(transformer.proj_out, _Whole(group_of(config)), "whole")


class SplitAttention(HunyuanVideoAttnProcessor2_0):
    """The library's attention, on this process's part of image and text.

    Attributes:
        has_text: whether this process's text tokens are real; else there is one that nobody is to attend to.
    """

    _parallel_config: ParallelConfig

    def __init__(self, backend: AttentionBackendName, parallel: ParallelConfig):
        super().__init__()
        self._attention_backend = backend
        self._parallel_config = parallel
        self.has_text = True

    def __call__(
        self,
        attn: torch.nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend; shapes [1, tokens, channels] in and out. The mask, which hides nothing, is not looked at.

        Raises:
            ValueError: more than one video in the batch, whose padding only a mask could hide.
        """
        if hidden_states.shape[0] != 1:
            raise ValueError(f"context parallelism takes one video a call, not {hidden_states.shape[0]}")
        assert image_rotary_emb is not None  # this transformer gives it to all its blocks
        image_length, text = hidden_states.shape[1], encoder_hidden_states
        query, key, value = project_heads(attn, hidden_states, JOINT_PROJECTIONS)
        for part in (query, key):
            rotate_(part, image_rotary_emb)
        if self.has_text:
            names = JOINT_PROJECTIONS if attn.add_q_proj is None else TEXT_PROJECTIONS
            text_query, text_key, text_value = project_heads(attn, text, names)
            # One after another: each tensor is let go when the longer one is there.
            query = torch.cat([query, text_query], dim=1)
            key = torch.cat([key, text_key], dim=1)
            value = torch.cat([value, text_value], dim=1)
        found = self._attend(query, key, value).flatten(2, 3).to(query.dtype)
        image, text = found[:, :image_length], found[:, image_length:] if self.has_text else torch.zeros_like(text)
        return project_out(attn, image, text)

    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        parallel = self._parallel_config
        if query.device.type == "cpu" and parallel.context_parallel_config.ring_anything:
            # The library's own kernel for the CPU gives no log-sum-exp; torch has one that does.
            found: torch.Tensor = TemplatedRingAnythingAttention.apply(
                query, key, value, None, 0.0, False, None, False, False, _attend_on_cpu, None, parallel
            )
            return found
        found = dispatch_attention_fn(query, key, value, backend=self._attention_backend, parallel_config=parallel)
        return found


class _LongEnough(ModelHook):
    """Gives a text of fewer tokens than processes one zero token for each process that would have none.

    The library cannot split off parts without a token, nor do the blocks take them. Those zeros take no part in
    the attention (``SplitAttention.has_text``), and what becomes of them is dropped with the text at the end.
    """

    def __init__(self, process_group: ProcessGroup, processor: SplitAttention):
        super().__init__()
        self._team, self._processor = process_group, processor

    def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        length = output.shape[1]
        self._processor.has_text = self._team.rank < length
        return torch.nn.functional.pad(output, (0, 0, 0, max(0, self._team.size - length)))


class _Whole(ModelHook):
    """Gives every process all parts of the output, also where gloo cannot gather unequal ones as the library does."""

    def __init__(self, group: dist.ProcessGroup):
        super().__init__()
        self._group = group

    def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        lengths = gather_size_by_comm(output.shape[1], self._group)
        padded = torch.nn.functional.pad(output, (0, 0, 0, max(lengths) - output.shape[1]))
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded, group=self._group)
        return torch.cat([part[:, :length] for part, length in zip(parts, lengths, strict=True)], dim=1)


def _attend_on_cpu(
    ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the library's ring asks of a kernel: the output [1, n, heads, head_dim] and log-sum-exp [1, n, heads]."""
    found, log_sum = attend_on_cpu(*(x.transpose(1, 2) for x in (query, key, value)))
    return found.transpose(1, 2), log_sum.transpose(1, 2)
