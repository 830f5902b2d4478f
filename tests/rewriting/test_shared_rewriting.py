"""One language model shared by all threads of a batch at a service."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from scribe import ANSWERS, PROMPT

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.hosted.spending import Budget
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.backends.prompt_rewriting import PromptRewriter
from hunyuan_local.cli.shared.batch_workers import make_batch_pool
from hunyuan_local.config import RewriteConfig, SafetyConfig
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest


def test_threads_that_share_it_load_the_model_once(scribe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hunyuan_local.pipeline.text.language_model import LanguageModel

    loaded: list[str] = []
    load = LanguageModel.__init__

    def counting(self: LanguageModel, config: RewriteConfig, device: str) -> None:
        loaded.append(device)
        load(self, config, device)

    monkeypatch.setattr(LanguageModel, "__init__", counting)
    shared, config = PromptRewriter(), RewriteConfig(model_id=str(scribe))

    def rewritten(number: int) -> str:
        request = GenerationRequest(prompt=PROMPT, rewrite="normal", seed=number)
        return shared.rewrite(request, GenerationContext(rewriting=config)).prompt

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(rewritten, range(4))) == {ANSWERS["normal", PROMPT]}
    assert loaded == ["cpu"]


@pytest.mark.parametrize(("endpoint", "rewriters"), [(None, 1), ("http://127.0.0.1:1/v1", 3)])
def test_threads_of_a_batch_share_a_model_of_this_machine_and_ask_an_endpoint_each(
    folder: DataFolder, store: JobStore, endpoint: str | None, rewriters: int
) -> None:
    flags = {
        "backend": "wavespeed", "api_key": "key", "concurrency": 3, "allow_loss": False, "submit_again": False,
        "lease_s": 30.0, "min_free_bytes": 0, "rewriting": RewriteConfig(endpoint=endpoint), "safety": SafetyConfig(),
    }  # fmt: skip
    batch = SimpleNamespace(folder=folder, store=store)
    pool = make_batch_pool(batch, WaveSpeedBackend("key"), flags, Budget(folder.root / "account.json", None, None))
    assert len({id(backend._prompt_rewriter) for backend in pool._backends}) == rewriters


def test_whoever_ends_first_leaves_it_to_the_others(scribe: Path) -> None:
    shared, context = PromptRewriter(), GenerationContext(rewriting=RewriteConfig(model_id=str(scribe)))
    shared.rewrite(GenerationRequest(prompt=PROMPT, rewrite="normal"), context)
    loaded = shared._rewriter
    backend = WaveSpeedBackend("key")
    backend.share(shared)
    backend.close()
    assert shared._rewriter is loaded is not None
