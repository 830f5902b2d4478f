"""Workers for another model of the page: with the server's options, but without those of its model."""

from __future__ import annotations

import pytest
from server_stage import MODEL

from hunyuan_local.cli.shared import server
from hunyuan_local.cli.shared.worker_pool import Placement
from hunyuan_local.config import LoraConfig
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.pool import Pool
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.switching_pool import ModelWorkers
from hunyuan_local.jobs.worker_config import WorkerOptions
from hunyuan_local.server.config import ServerConfig

STYLE = (LoraConfig(path="style"),)
OPTIONS = WorkerOptions(
    model=MODEL.name, revision="v1", lora=STYLE, cache="taylorseer-conservative", checkpoint_every=5
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, folder: DataFolder, store: JobStore) -> dict[str, WorkerOptions]:
    """The options of the workers of two models: the server's own and another."""
    seen: dict[str, WorkerOptions] = {}

    def note(store: JobStore, folder: DataFolder, options: WorkerOptions, placement: Placement) -> Pool:
        seen[options.model] = options

    monkeypatch.setattr(server, "make_pool", note)
    config = ServerConfig(model=MODEL, models=("hunyuan-video",))
    pool = server._make_pool(config, store, folder, OPTIONS, Placement())
    pool._make(ModelWorkers("hunyuan-video", "cpu", "other"))
    return seen


def test_the_servers_own_model_has_all_that_was_given(made: dict[str, WorkerOptions]) -> None:
    own = made[MODEL.name]
    assert (own.revision, own.lora, own.cache) == ("v1", STYLE, "taylorseer-conservative")


def test_another_model_has_none_of_its_revision_loras_and_cache(made: dict[str, WorkerOptions]) -> None:
    other = made["hunyuan-video"]
    assert (other.revision, other.lora, other.cache) == (None, (), None)


def test_another_model_has_what_was_given_for_all(made: dict[str, WorkerOptions]) -> None:
    other = made["hunyuan-video"]
    assert (other.profile, other.queue, other.checkpoint_every) == ("cpu", "other", 5)
