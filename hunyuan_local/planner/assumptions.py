"""Describes the assumptions behind the estimates, as text. Knows nothing about how they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import GIB
from .context_parallel import heads_a_card, wasted_share, why_not
from .machine import Machine
from .time_estimate import DISK_GBS, PARALLEL_LOSS, SLOTS_SHARE


def of_batch(machine: Machine, heads: int, cards: int, videos: int, saved_bytes: int) -> Iterator[str]:
    """Assumptions about several videos on several cards; those about one video on one card are in ``Plan``.

    Args:
        machine: the machine, with one of its cards.
        heads: the transformer's attention heads.
        cards: number of cards.
        videos: number of videos.
        saved_bytes: by how much splitting a video lowers a card's peak in denoising, apart from the weights.
    """
    yield (
        f"loading: {DISK_GBS:g} GB/s from disk (assumed), once for all cards; writing an mp4 overlaps with the next "
        "video and adds no time"
    )
    if cards == 1:
        yield (
            "one at a time: the text encoders are moved to the GPU and back for each video; staged: all prompts are "
            "encoded first, then the text encoders are released"
        )
        return
    idle = f"; idle cards: {cards - videos} of {cards}" if videos < cards else ""
    yield (
        f"replicas: each card has its own model, process and PCIe slot, encodes its prompts first, and generates up to "
        f"{math.ceil(videos / cards):,} of the videos{idle}"
    )
    if (problem := why_not(heads, cards)) is None:
        yield _of_sharing(machine, heads, cards, saved_bytes)
    else:
        yield problem


def _of_sharing(machine: Machine, heads: int, cards: int, saved_bytes: int) -> str:
    gpu = machine.reference
    assert gpu is not None  # never called for a CPU
    if gpu.nvlink_gbs:
        link = f"over NVLink, {gpu.nvlink_gbs:g} GB/s from each card"
    else:
        link = f"through PCIe and main memory, {gpu.pcie_gbs * SLOTS_SHARE:.3g} GB/s for all cards together"
    waste = wasted_share(heads, cards)
    uneven = f" ({heads} heads do not divide evenly, so {waste:.0%} of the attention's time is lost)" if waste else ""
    own = heads_a_card(heads, cards)
    return (
        f"context parallel: Ulysses; each card has all weights, {own} heads{uneven} and a share of the tokens, which "
        f"saves {saved_bytes / GIB:.1f} GiB per card in denoising; each decodes some tiles of the video, and one "
        f"encodes the prompts; tensors are exchanged {link}; each further card adds {PARALLEL_LOSS:.0%} to a step "
        "(fitted to HunyuanVideo's README, 1 to 8 H100); none of this has been measured with this package"
    )
