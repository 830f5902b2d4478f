"""Workers of another model of the page: made with what is the server's, and without what is its own model's."""

from __future__ import annotations

from typing import Any

import pytest
from server_stage import MODEL

from hunyuan_local.cli.shared import server
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.switching_pool import ModelWorkers
from hunyuan_local.server.config import ServerConfig

OPTIONS = {"revision": "v1", "lora": ("style",), "cache": "taylorseer-conservative", "workers": 1, "profile": None}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, folder: DataFolder, store: JobStore) -> dict[str, dict[str, Any]]:
    """What the pools of two models are made of: the server's own and another."""
    seen: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(server, "make_pool", lambda store, folder, model, **more: seen.setdefault(model, more))
    config = ServerConfig(model=MODEL, models=("hunyuan-video",))
    pool = server._make_pool(MODEL.name, config, store, folder, OPTIONS)
    pool._make(ModelWorkers("hunyuan-video", "", "other"))
    return seen


def test_the_servers_own_model_has_all_that_was_given(made: dict[str, dict[str, Any]]) -> None:
    own = made[MODEL.name]
    assert (own["revision"], own["lora"], own["cache"]) == ("v1", ("style",), "taylorseer-conservative")


def test_another_model_has_none_of_its_revision_loras_and_cache(made: dict[str, dict[str, Any]]) -> None:
    other = made["hunyuan-video"]
    assert (other["revision"], other["lora"], other["cache"], other["workers"]) == (None, (), None, 1)
