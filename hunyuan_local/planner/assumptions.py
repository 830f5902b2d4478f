"""What the estimates rest on, in words. Knows nothing about how they are computed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import GIB
from .context_parallel import heads_a_card, wasted_share, why_not
from .cost import DISK_GBS, PARALLEL_LOSS, SLOTS_SHARE
from .machine import Machine


def of_batch(machine: Machine, heads: int, cards: int, videos: int, saved_bytes: int) -> Iterator[str]:
    """Of several videos on several cards; those of one video on one card are the plan's own.

    Args:
        machine: with one of the cards.
        heads: of the transformer's attention.
        cards: that there are.
        videos: to be made.
        saved_bytes: by which sharing lowers a card's peak in denoising, beside weights that stay.
    """
    yield (
        f"loading: {DISK_GBS:g} GB/s from disk, assumed, once for all cards; the mp4 is written while the next video "
        "is made and takes no time of its own"
    )
    if cards == 1:
        yield (
            "one at a time: the text encoders come and go for each video; staged: all prompts are encoded first, and "
            "then they leave for good"
        )
        return
    idle = f"; idle cards: {cards - videos} of {cards}" if videos < cards else ""
    yield (
        f"replicas: each card has a model, a process and a slot of its own, encodes its prompts first, and makes up to "
        f"{math.ceil(videos / cards):,} of the videos{idle}"
    )
    if (problem := why_not(heads, cards)) is None:
        yield _of_sharing(machine, heads, cards, saved_bytes)
    else:
        yield problem


def _of_sharing(machine: Machine, heads: int, cards: int, saved_bytes: int) -> str:
    gpu = machine.reference
    assert gpu is not None  # several cards are never CPUs
    if gpu.nvlink_gbs:
        link = f"over NVLink, {gpu.nvlink_gbs:g} GB/s from each card"
    else:
        link = f"through their slots and main memory, {gpu.pcie_gbs * SLOTS_SHARE:.3g} GB/s for all cards together"
    waste = wasted_share(heads, cards)
    uneven = f" ({heads} heads do not go round, so {waste:.0%} of the attention's time is lost)" if waste else ""
    own = heads_a_card(heads, cards)
    return (
        f"context parallel: Ulysses; each card has all weights, {own} heads{uneven} and a share of the tokens, which "
        f"saves it {saved_bytes / GIB:.1f} GiB while denoising; they decode a piece of the video each, and one encodes "
        f"the prompts; what the cards swap goes {link}; each further card costs {PARALLEL_LOSS:.0%} of a step (read "
        "off HunyuanVideo's README, 1 to 8 H100); nothing of it is measured with this package"
    )
