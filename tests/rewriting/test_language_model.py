"""The local language model, with transformers' own loading and generation."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from scribe import ANSWERS, PROMPT, TEMPLATE, make_scribe

from hunyuan_local.config import RewriteConfig
from hunyuan_local.errors import ConfigError, GenerationCancelledError, ModelLoadError, RewriteError
from hunyuan_local.pipeline.text.language_model import LanguageModel, weight_bytes
from hunyuan_local.rewriting import Rewriter
from hunyuan_local.schema import GenerationRequest

MESSAGES = [{"role": "user", "content": PROMPT}]


def never() -> bool:
    return False


def rewriter(folder: Path, **settings: object) -> Rewriter:
    config = RewriteConfig(model_id=str(folder), **settings)
    return Rewriter(config, lambda: LanguageModel(config, "cpu"))


@pytest.mark.parametrize("mode", ["normal", "master"])
def test_a_prompt_is_rewritten_as_its_mode_says(scribe: Path, mode: str) -> None:
    found = rewriter(scribe).rewrite(GenerationRequest(prompt=PROMPT, rewrite=mode), never)
    assert found.request.prompt == ANSWERS[mode, PROMPT]


def test_the_original_prompt_is_kept_with_the_new_one(scribe: Path) -> None:
    found = rewriter(scribe).rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), never)
    assert found.request.original_prompt == PROMPT


def test_a_rewritten_request_awaits_no_rewriting(scribe: Path) -> None:
    found = rewriter(scribe).rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), never)
    assert not found.request.awaits_rewriting


def test_the_note_names_the_model_and_the_new_prompt(scribe: Path) -> None:
    found = rewriter(scribe).rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), never)
    assert str(scribe) in found.note
    assert ANSWERS["normal", PROMPT] in found.note


def test_a_refusal_fails_with_the_way_on(scribe: Path) -> None:
    request = GenerationRequest(prompt="a blue square", rewrite="normal")
    with pytest.raises(RewriteError, match=r"declined.*--rewrite-failure use-original"):
        rewriter(scribe).rewrite(request, never)


def test_a_refusal_leaves_the_prompt_where_that_is_the_policy(scribe: Path) -> None:
    request = GenerationRequest(prompt="a blue square", rewrite="normal")
    found = rewriter(scribe, on_failure="use-original").rewrite(request, never)
    assert found.request == request.replace(original_prompt="a blue square")
    assert "using the original prompt" in found.note and "declined" in found.note


@pytest.mark.usefixtures("loads_model")
def test_an_untrained_model_never_ends_and_is_refused(tmp_path: Path) -> None:
    found = rewriter(make_scribe(tmp_path / "random", steps=0))
    with pytest.raises(RewriteError, match="did not finish within 200 tokens"):
        found.rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), never)


def test_the_time_limit_ends_the_writing(scribe: Path) -> None:
    model = LanguageModel(RewriteConfig(model_id=str(scribe), timeout_s=1e-6), "cpu")
    with pytest.raises(RewriteError, match="took longer than 1e-06 s on cpu; raise --rewrite-timeout"):
        model.write(MESSAGES, 20, never)


def test_cancelling_ends_the_writing_at_the_next_token(scribe: Path) -> None:
    asked = []
    model = LanguageModel(RewriteConfig(model_id=str(scribe)), "cpu")
    with pytest.raises(GenerationCancelledError):
        model.write(MESSAGES, 20, lambda: asked.append(1) or len(asked) == 2)
    assert len(asked) == 2


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = make_scribe(tmp_path / "plain", chat_template=None, steps=0)
    with pytest.raises(ConfigError, match="has no chat template; give --rewrite-model"):
        LanguageModel(RewriteConfig(model_id=str(folder)), "cpu")


@pytest.mark.parametrize("ask", [weight_bytes, lambda config: LanguageModel(config, "cpu")])
def test_a_model_that_is_not_there_is_named(ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelLoadError, match=r"rewrite_model='nobody/nothing': cannot be loaded: .*--rewrite-endpoint"):
        ask(RewriteConfig(model_id="nobody/nothing"))


def test_the_size_is_known_before_a_weight_is_read(scribe: Path) -> None:
    stored = (scribe / "model.safetensors").stat().st_size
    assert 0.95 < weight_bytes(RewriteConfig(model_id=str(scribe))) / stored < 1.05


def test_the_model_is_kept_for_the_next_prompt(scribe: Path) -> None:
    config, made = RewriteConfig(model_id=str(scribe)), []
    kept = Rewriter(config, lambda: made.append(1) or LanguageModel(config, "cpu"))
    for _ in range(2):
        kept.rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), never)
    assert len(made) == 1


def test_a_closed_rewriter_loads_the_model_again(scribe: Path) -> None:
    config, made = RewriteConfig(model_id=str(scribe)), []
    kept = Rewriter(config, lambda: made.append(1) or LanguageModel(config, "cpu"))
    for _ in range(2):
        kept.rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), never)
        kept.close()
    assert len(made) == 2


def test_the_switch_of_another_thread_is_seen(scribe: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(GenerationCancelledError):
        rewriter(scribe).rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), cancel.is_set)


def test_a_template_without_a_system_role_is_reported_all_by_the_user(scribe: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scribe, tmp_path / "no-system")
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(strict + TEMPLATE)
    model = LanguageModel(RewriteConfig(model_id=str(folder)), "cpu")
    seen = model._tokenizer.decode(model._encoded([{"role": "user", "content": PROMPT}])["input_ids"][0])
    assert PROMPT in seen
    answer = model.write([{"role": "system", "content": "be plain"}, *MESSAGES], 3, never)
    assert answer.text


def test_a_prompt_that_no_rewritten_one_could_hold_is_refused_beforehand(tmp_path: Path) -> None:
    nobody = Rewriter(RewriteConfig(), lambda: pytest.fail("a model was loaded"))
    with pytest.raises(RewriteError, match="is 1000 characters long, and the limit for rewriting is 900"):
        nobody.rewrite(GenerationRequest(prompt="x" * 1000, rewrite="normal"), never)


def test_a_target_with_less_room_than_the_template_is_heeded() -> None:
    nobody = Rewriter(RewriteConfig(), lambda: pytest.fail("a model was loaded"))
    with pytest.raises(RewriteError, match="the limit for rewriting is 50"):
        nobody.rewrite(GenerationRequest(prompt="x" * 51, rewrite="normal"), never, 50)
