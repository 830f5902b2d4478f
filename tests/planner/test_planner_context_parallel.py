"""One video over several GPUs: computation, memory and communication of each."""

from __future__ import annotations

import pytest
from live_tensors import LARGE

from hunyuan_local.planner.architecture import Transformer
from hunyuan_local.planner.cards import find_gpu, recognise
from hunyuan_local.planner.context_parallel import heads_a_card, wasted_share, why_not
from hunyuan_local.planner.denoising import Pass, trace_pass
from hunyuan_local.planner.time_estimate import exchange_seconds

CONFIG = Transformer.model_validate(LARGE["transformer"])
TOKENS, WIDTH, LAYERS = 118_800 + 256, 3072, 60


def shared(cards: int) -> object:
    return trace_pass(CONFIG, Pass(118_800, 256, cards=cards))


@pytest.mark.parametrize("cards", [2, 4, 8])
def test_the_cards_together_compute_what_one_would(cards: int) -> None:
    assert cards * shared(cards).flops == pytest.approx(shared(1).flops, rel=1e-3)


@pytest.mark.parametrize("cards", [2, 4, 8])
def test_each_card_sends_queries_keys_values_and_the_output_of_every_layer(cards: int) -> None:
    expected = 4 * LAYERS * TOKENS * WIDTH * 2 * (cards - 1) / cards**2
    assert shared(cards).exchanged_bytes == pytest.approx(expected, rel=1e-3)


def test_one_card_sends_nothing() -> None:
    assert shared(1).exchanged_bytes == 0


@pytest.mark.parametrize("cards", [2, 4])
def test_activations_are_shared_out(cards: int) -> None:
    # Queries, keys and values are there three times while they are exchanged: 11 tensors of all tokens. The whole input
    # of the first block and the tables of all tokens stay on every card.
    whole_input, tables = TOKENS * WIDTH * 2, TOKENS * 2 * 128 * 4
    expected = 11 * whole_input / cards + whole_input + tables
    assert shared(cards).peak_bytes == pytest.approx(expected, rel=0.03)


def test_heads_that_do_not_go_round_cost_attention() -> None:
    whole, padded = shared(1).attention_flops, shared(5).attention_flops
    assert padded / whole == pytest.approx(5 / 24, rel=1e-3)


def test_the_wasted_share_is_that_of_the_padding() -> None:
    assert (heads_a_card(24, 5), wasted_share(24, 5), wasted_share(24, 8)) == (5, pytest.approx(0.04), 0)


def test_the_numbers_of_cards_are_those_that_the_library_takes() -> None:
    assert [cards for cards in range(1, 30) if why_not(24, cards) is None] == [1, 2, 3, 4, 5, 6, 8, 12, 24]


def test_the_other_refusals_name_a_remedy() -> None:
    assert why_not(24, 7).endswith("2, 3, 4, 5, 6, 8, 12 or 24 can")


def test_nvlink_gives_each_card_its_own_rate() -> None:
    assert exchange_seconds(10**9, find_gpu("h100"), 8) == exchange_seconds(10**9, find_gpu("h100"), 2)


def test_slots_are_shared_by_all_cards() -> None:
    assert exchange_seconds(10**9, find_gpu("l20"), 8) == 4 * exchange_seconds(10**9, find_gpu("l20"), 2)


@pytest.mark.parametrize(("name", "nvlink"), [("NVIDIA A100-SXM4-80GB", 300), ("NVIDIA A100 80GB PCIe", 0)])
def test_a_card_for_slots_has_no_nvlink(name: str, nvlink: int) -> None:
    assert recognise(name, 80 * 2**30, (8, 0)).nvlink_gbs == nvlink
