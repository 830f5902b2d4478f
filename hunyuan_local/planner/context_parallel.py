"""One video over several cards, as diffusers' Ulysses attention for any length shares it out.

Each card has a part of the tokens; for the attention alone the cards swap, so that each has all tokens of a
part of the heads, and back. Knows nothing about devices and the links between them.
"""

from __future__ import annotations

from .trace import Trace


def heads_a_card(heads: int, cards: int) -> int:
    """Heads that each card attends to, but for the last, which has what is left."""
    return -(-heads // cards)


def wasted_share(heads: int, cards: int) -> float:
    """The share of the attention's time that the last card waits where the heads do not go round; 0 where they do."""
    return 1 - heads / (heads_a_card(heads, cards) * cards)


def why_not(heads: int, cards: int) -> str | None:
    """Why so many cards cannot share so many heads; None if they can."""
    if can_share(heads, cards):
        return None
    *possible, last = [number for number in range(2, heads + 1) if can_share(heads, number)]
    return (
        f"context parallel: {cards} cards cannot share {heads} heads, as not all would get one; "
        f"{', '.join(map(str, possible))} or {last} can"
    )


def can_share(heads: int, cards: int) -> bool:
    """What the library asks: fewer padding heads than each card has (``_maybe_pad_qkv_head``)."""
    own = heads_a_card(heads, cards)
    return own * cards - heads < own


def swap_in(t: Trace, names: tuple[str, ...], size: int, heads: int, cards: int) -> None:
    """Trace queries, keys and values on their way to the cards of their heads (``all_to_all_single_any_qkv_async``).

    Args:
        t: in which ``size`` bytes of each are live, and stay so.
        names: of the tensors.
        size: bytes of one card's part of one of them.
        heads: of the attention.
        cards: that share it.
    """
    padded = _padded(size, heads, cards)
    for name in names:
        t.make(f"{name} in the order of cards", padded)
        t.make(f"{name} of the card's heads", padded, moves=False)
        t.exchange(padded * (cards - 1) // cards)
    t.drop(*(f"{name} in the order of cards" for name in names))


def swap_out(t: Trace, name: str, given: tuple[str, ...], size: int, heads: int, cards: int) -> None:
    """Trace the attention's output on its way back to the cards of its tokens (``all_to_all_single_any_o_async``).

    Args:
        t: in which the output lives as ``"{name} of the card's heads"``; ``name`` lives afterwards.
        name: of the output.
        given: names that ``swap_in`` had; they are let go.
        size, heads, cards: as there.
    """
    padded = _padded(size, heads, cards)
    t.make(f"{name} in the order of cards", padded, moves=False)
    t.exchange(padded * (cards - 1) // cards)
    t.make(name, padded)
    t.drop(*(f"{part} of the card's heads" for part in (name, *given)), f"{name} in the order of cards")


def _padded(size: int, heads: int, cards: int) -> int:
    return size * heads_a_card(heads, cards) * cards // heads
