"""How much GPU memory torch reserves for the tensors of a stage: more than they have, because freed pieces do not join.

``reserved = resting + moving * factor``: weights that stay where they are leave no gaps (24.37 GiB were reserved for
24.35); everything that comes and goes does. All measured factors are those of ``scripts/gpu_check`` on one H100 with
the default allocator (benchmarks/results/nvidia-h100-80gb-hbm3-*.json; torch.cuda.max_memory_reserved by stage):

===========================  =====================================================  ==========
stage                        reserved for what moves, GiB / moving, GiB              factor
===========================  =====================================================  ==========
denoise, none, 720p x 129    61.06 - 38.57 (weights and what encoding left) / 12.43  1.81
denoise, group, 720p x 129   26.02 - 1.59 (what encoding left) / 13.65               1.79
denoise, resident, 512x320   25.96 - 23.90 (weights) / 1.12                          1.84
decode, none, 512x320        37.94 - 24.37 / 8.87                                    1.53
decode, none, 720p           49.45 - 24.37 / 19.37                                   1.29
===========================  =====================================================  ==========

What encoding leaves is given back before the denoising, so it is not added: 61.1 GiB reserved for 36.8 GiB of tensors
(1.66) contain 14.2 GiB of it, and 26.0 for 13.7 (1.91) contain 1.6.

Expandable segments grow in place and return whole pages of 20 MiB, so gaps are only what is left of a page at each
tensor, and what a stream holds for a tensor that another one frees. **Nobody has measured this model with them**:
``EXPANDABLE`` is an assumption between no gaps and half of the default allocator's.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Factor:
    """Reserved over allocated bytes of what comes and goes: assumed, lowest and highest."""

    usual: float
    lowest: float
    highest: float


# Stages without an entry hold hardly anything that moves.
DEFAULT = {"denoise": Factor(1.85, 1.79, 2.0), "decode": Factor(1.5, 1.01, 1.53)}
EXPANDABLE = {"denoise": Factor(1.1, 1.0, 1.4), "decode": Factor(1.05, 1.0, 1.25)}
_OTHERS = Factor(1.03, 1.0, 1.5)


def factor_of(stage: str, expandable: bool) -> Factor:
    """The factor of a stage, with or without expandable segments."""
    return (EXPANDABLE if expandable else DEFAULT).get(stage, _OTHERS)


def reserved(stage: str, gpu_bytes: int, resting_bytes: int, expandable: bool) -> tuple[int, int, int]:
    """Bytes that torch reserves on the GPU: assumed, lowest and highest.

    Args:
        stage: of the generation.
        gpu_bytes: peak of the tensors.
        resting_bytes: those of them that stay during the whole stage.
        expandable: whether the allocator uses expandable segments.
    """
    factor, moving = factor_of(stage, expandable), gpu_bytes - resting_bytes
    usual, lowest, highest = (
        resting_bytes + round(moving * share) for share in (factor.usual, factor.lowest, factor.highest)
    )
    return usual, lowest, highest
