"""The tokenizer guard and the report of text that is cut off."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import LlamaTokenizerFast

from hunyuan_local.config import load_model_config
from hunyuan_local.errors import ModelLoadError, TokenizerMismatchError
from hunyuan_local.pipeline.text.tokenizers import (
    check_tokenizer,
    find_truncations,
    load_clip_tokenizer,
    load_llama_tokenizer,
)

CONFIG = load_model_config("tiny")
TEMPLATE = CONFIG.prompt_template
FOLDER = Path(CONFIG.source)


def test_the_checkpoint_names_the_misleading_class() -> None:
    config = json.loads((FOLDER / "tokenizer" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "LlamaTokenizerFast"


def test_the_class_that_the_checkpoint_names_fails_the_guard() -> None:
    tokenizer = LlamaTokenizerFast.from_pretrained(FOLDER / "tokenizer")
    with pytest.raises(TokenizerMismatchError, match=r"encodes .* differently"):
        check_tokenizer(tokenizer, FOLDER / "tokenizer" / "tokenizer.json", TEMPLATE)


def test_our_loading_passes_the_guard() -> None:
    tokenizer = load_llama_tokenizer(FOLDER / "tokenizer", TEMPLATE)
    assert tokenizer.decode(tokenizer("Two  spaces\n").input_ids, skip_special_tokens=True) == "Two  spaces\n"


def test_left_padding_fails_the_guard(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER / "tokenizer", tmp_path / "tokenizer"))
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"padding_side": "left"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerMismatchError, match="padding_side='left'"):
        load_llama_tokenizer(folder, TEMPLATE)


def test_a_missing_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json"):
        load_llama_tokenizer(tmp_path, TEMPLATE)


def test_crop_start_is_the_number_of_tokens_before_the_prompt() -> None:
    tokenizer = load_llama_tokenizer(FOLDER / "tokenizer", TEMPLATE)
    assert len(tokenizer(TEMPLATE.template.split("{}")[0]).input_ids) == TEMPLATE.crop_start


@pytest.fixture(scope="module")
def both() -> tuple:
    return load_llama_tokenizer(FOLDER / "tokenizer", TEMPLATE), load_clip_tokenizer(FOLDER / "tokenizer_2")


def test_a_short_prompt_loses_nothing(both: tuple) -> None:
    assert find_truncations(*both, TEMPLATE, "a red circle") == []


def test_75_words_fit_clip_exactly(both: tuple) -> None:
    assert find_truncations(*both, TEMPLATE, " ".join(["red"] * 75)) == []


def test_the_76th_word_is_lost_to_clip(both: tuple) -> None:
    (found,) = find_truncations(*both, TEMPLATE, " ".join(["red"] * 75 + ["circle"]))
    assert (found.encoder, found.lost_text) == ("CLIP", "circle")


def test_256_words_fit_llama_exactly(both: tuple) -> None:
    found = find_truncations(*both, TEMPLATE, " ".join(["red"] * 256))
    assert [f.encoder for f in found] == ["CLIP"]


def test_the_257th_word_is_lost_to_llama(both: tuple) -> None:
    found = find_truncations(*both, TEMPLATE, " ".join(["red"] * 256 + ["circle"]))
    assert found[0].encoder == "Llama"
    assert found[0].lost_text.strip() == "circle"
