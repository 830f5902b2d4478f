"""Encoded prompts: cached on disk with a key of everything they depend on; a cached prompt needs no text encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hunyuan_local.config import RuntimeProfile, load_model_config, load_profile
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.pipeline.text import prompt_encoder
from hunyuan_local.pipeline.text.prompt import Prompt
from hunyuan_local.pipeline.text.prompt_cache import NAMES, PromptCache, encoder_identity
from hunyuan_local.schema import GenerationRequest

CPU = load_profile("cpu")
TINY = load_model_config("tiny")
REQUEST = GenerationRequest(prompt="a green square moving up on a grey background")
reads_weights = pytest.mark.usefixtures("loads_model")
EMBEDDINGS = {name: torch.full((1, 4), float(number)) for number, name in enumerate(NAMES)}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HUNYUAN_LOCAL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "prompts"


def encoded(profile: RuntimeProfile = CPU, request: GenerationRequest = REQUEST) -> tuple[LoadedModel, dict]:
    model = load_model(TINY, profile)
    return model, model.prompts.encode(request, pytest.fail)


@reads_weights
def test_the_text_encoders_are_not_loaded_with_the_model() -> None:
    assert load_model(TINY, CPU).pipe.text_encoder is None


@reads_weights
def test_a_repeated_prompt_loads_no_text_encoder() -> None:
    first, embeddings = encoded()
    second, found = encoded()
    assert first.pipe.text_encoder is not None and second.pipe.text_encoder is None
    assert all(torch.equal(found[name], embeddings[name]) for name in NAMES)


@reads_weights
def test_what_the_encoders_used_is_given_back_before_the_denoising(monkeypatch: pytest.MonkeyPatch) -> None:
    freed: list[bool] = []
    monkeypatch.setattr(prompt_encoder, "free_device", lambda: freed.append(True))
    encoded()
    assert freed == [True]
    encoded()  # from the cache
    assert freed == [True]


@reads_weights
def test_another_prompt_is_encoded() -> None:
    encoded()
    model, _ = encoded(request=REQUEST.replace(prompt="a red circle"))
    assert model.pipe.text_encoder is not None


@reads_weights
def test_a_negative_prompt_is_encoded_where_it_has_an_effect() -> None:
    _, embeddings = encoded(request=REQUEST.replace(negative_prompt="dull", true_cfg_scale=2.0))
    assert {f"negative_{name}" for name in NAMES} < embeddings.keys()


@reads_weights
def test_a_negative_prompt_without_effect_is_not_encoded() -> None:
    _, embeddings = encoded(request=REQUEST.replace(negative_prompt="dull"))
    assert set(NAMES) == embeddings.keys()


@reads_weights
def test_the_cache_can_be_turned_off(own_cache: Path) -> None:
    encoded(CPU.model_copy(update={"prompt_cache": False}))
    assert not own_cache.exists()


@reads_weights
def test_a_folder_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    notes: list[str] = []
    embeddings = load_model(TINY, CPU).prompts.encode(REQUEST, notes.append)
    assert set(NAMES) == embeddings.keys()
    assert "set HUNYUAN_LOCAL_CACHE_DIR to another folder" in notes[0]


@reads_weights
def test_a_damaged_entry_is_made_again(own_cache: Path) -> None:
    _, embeddings = encoded()
    entry = next(own_cache.iterdir())
    entry.write_bytes(entry.read_bytes()[:-100])
    model, found = encoded()
    assert model.pipe.text_encoder is not None and torch.equal(found["prompt_embeds"], embeddings["prompt_embeds"])


@reads_weights
def test_the_encoders_may_stay_on_the_cpu() -> None:
    placed = {"placement": CPU.placement.model_copy(update={"text_encoder": "cpu", "text_encoder_2": "cpu"})}
    _, embeddings = encoded(CPU.model_copy(update=placed))
    assert embeddings["prompt_embeds"].shape[1] == 256


@pytest.mark.parametrize(
    "other",
    [
        {"encoder": "other"},
        {"template": TINY.prompt_template.model_copy(update={"template": "x {}"})},
        {"template": TINY.prompt_template.model_copy(update={"crop_start": 3})},
    ],
)
def test_an_entry_belongs_to_one_encoder_and_template(tmp_path: Path, other: dict) -> None:
    made = {"encoder": "one", "template": TINY.prompt_template}
    PromptCache(tmp_path, **made).save(Prompt("a cat"), EMBEDDINGS)
    assert PromptCache(tmp_path, **made).load(Prompt("a cat")) is not None
    assert PromptCache(tmp_path, **(made | other)).load(Prompt("a cat")) is None


def test_the_entry_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, "one", TINY.prompt_template, max_bytes=700)
    for moment, prompt in enumerate(["first", "second"], start=1):
        cache.save(Prompt(prompt), EMBEDDINGS)
        os.utime(max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime), (moment, moment))
    assert cache.load(Prompt("first")) is not None  # which makes it the most recently used
    cache.save(Prompt("third"), EMBEDDINGS)
    assert [cache.load(Prompt(prompt)) is None for prompt in ("first", "second", "third")] == [False, True, False]


@pytest.mark.parametrize("change", ["weights", "dtypes", "devices"])
def test_the_identity_of_the_encoders_follows(tmp_path: Path, change: str) -> None:
    file = tmp_path / "text_encoder" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    facts = {"dtypes": {"text_encoder": "float16"}, "devices": {"text_encoder": "cuda"}}
    before = encoder_identity(tmp_path, **facts)
    if change == "weights":
        os.utime(file, ns=(1, 1))
    else:
        facts[change] = {"text_encoder": "other"}
    assert encoder_identity(tmp_path, **facts) != before
