"""The identity of an item, and its file name."""

from __future__ import annotations

import pytest

from hunyuan_local.batch.file import BatchItem
from hunyuan_local.batch.items import Maker, wanted_items
from hunyuan_local.schema import GenerationRequest

MAKER = Maker("tiny", "headers-sha256:abc", {"width": 144, "num_inference_steps": 8})


def keys(*items: BatchItem, maker: Maker = MAKER) -> list[str]:
    return [item.key for item in wanted_items(items, maker)[0]]


def item(line: int = 1, **fields: object) -> BatchItem:
    return BatchItem(line, GenerationRequest(**({"prompt": "a cat"} | fields)))


def test_the_same_line_is_the_same_item() -> None:
    assert keys(item()) == keys(item())


def test_where_the_line_stands_does_not_matter() -> None:
    assert keys(item(line=1)) == keys(item(line=7))


@pytest.mark.parametrize("change", [{"prompt": "a dog"}, {"seed": 3}, {"num_frames": 17}, {"num_inference_steps": 9}])
def test_a_changed_line_is_another_item(change: dict) -> None:
    assert keys(item()) != keys(item(**change))


@pytest.mark.parametrize("maker", [Maker("other", MAKER.weights, MAKER.defaults), Maker("tiny", "x", MAKER.defaults)])
def test_another_model_or_other_weights_make_another_item(maker: Maker) -> None:
    assert keys(item()) != keys(item(), maker=maker)


def test_a_default_that_is_written_out_makes_no_other_item() -> None:
    assert keys(item()) == keys(item(num_inference_steps=8))


def test_equal_lines_without_a_seed_are_two_videos() -> None:
    assert len(set(keys(item(line=1), item(line=2, num_inference_steps=8)))) == 2


def test_equal_lines_with_a_seed_are_one_video() -> None:
    found, notes = wanted_items([item(line=1, seed=3), item(line=2, seed=3, num_inference_steps=8)], MAKER)
    assert (len(found), notes) == (1, ["line 2: same video as line 1, seed 3; generated once"])


def name(prompt: str) -> str:
    return wanted_items([item(line=12, prompt=prompt)], MAKER)[0][0].name_for(42)


def test_the_name_begins_with_line_and_prompt_and_ends_with_seed_and_key() -> None:
    assert name("A cat, walking!") == f"0012-a-cat-walking-42-{keys(item(prompt='A cat, walking!'))[0][:6]}.mp4"


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "a\nb\0c", "...", "/", "猫" * 300, "é" * 300, "-rf *"])
def test_no_prompt_makes_a_name_that_a_folder_does_not_take(prompt: str) -> None:
    found = name(prompt)
    assert "/" not in found and "\0" not in found and found.isprintable() and len(found.encode()) < 200
