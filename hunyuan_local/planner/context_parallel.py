"""Costs of splitting one video over several cards with Ulysses attention (``pipeline/attention/exchange.py``).

Each of P cards has N/P of the tokens. For attention, an all-to-all exchange gives each card all N tokens of heads/P
heads; a second exchange reverses this. Knows nothing about devices and the links between them.
"""

from __future__ import annotations

from .trace import Trace


def heads_a_card(heads: int, cards: int) -> int:
    """Attention heads per card, rounded up; the last card has the remainder."""
    return -(-heads // cards)


def wasted_share(heads: int, cards: int) -> float:
    """Share of the attention's time lost because the heads do not divide evenly; 0 if they do."""
    return 1 - heads / (heads_a_card(heads, cards) * cards)


def why_not(heads: int, cards: int) -> str | None:
    """Why this number of cards cannot split this number of heads; None if it can."""
    if can_share(heads, cards):
        return None
    *possible, last = [number for number in range(2, heads + 1) if can_share(heads, number)]
    return (
        f"context parallel: {cards} cards cannot split {heads} attention heads, because not every card would get one; "
        f"{', '.join(map(str, possible))} or {last} can"
    )


def can_share(heads: int, cards: int) -> bool:
    """Whether every card gets at least one head."""
    own = heads_a_card(heads, cards)
    return own * cards - heads < own


def swap_in(t: Trace, names: tuple[str, ...], size: int, heads: int, cards: int) -> None:
    """Trace the exchange of queries, keys and values before attention.

    A card sends ``(P - 1) / P`` of its part to the others.

    Args:
        t: a trace in which ``size`` bytes of each are alive; they stay alive.
        names: names of the tensors.
        size: bytes of one card's part of one tensor.
        heads: attention heads.
        cards: number of cards.
    """
    padded = _padded(size, heads, cards)
    for name in names:
        t.make(f"{name} in the order of cards", padded)
        t.make(f"{name} of the card's heads", padded, moves=False)
        t.exchange(padded * (cards - 1) // cards)
    t.drop(*(f"{name} in the order of cards" for name in names))


def swap_out(t: Trace, name: str, given: tuple[str, ...], size: int, heads: int, cards: int) -> None:
    """Trace the exchange of the attention's output back to token order.

    Args:
        t: a trace in which the output is alive as ``"{name} of the card's heads"``; afterwards ``name`` is alive.
        name: name of the output.
        given: the ``names`` of ``swap_in``; they are freed.
        size, heads, cards: as for ``swap_in``.
    """
    padded = _padded(size, heads, cards)
    t.make(f"{name} in the order of cards", padded, moves=False)
    t.exchange(padded * (cards - 1) // cards)
    t.make(name, padded)
    t.drop(*(f"{part} of the card's heads" for part in (name, *given)), f"{name} in the order of cards")


def _padded(size: int, heads: int, cards: int) -> int:
    return size * heads_a_card(heads, cards) * cards // heads
