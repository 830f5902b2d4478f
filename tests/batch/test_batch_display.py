"""The display of a batch while no video is generated."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hunyuan_local.batch.destination import Destination
from hunyuan_local.batch.file import BatchItem
from hunyuan_local.batch.items import Maker, wanted_items
from hunyuan_local.batch.run import Batch
from hunyuan_local.capabilities import Capabilities
from hunyuan_local.cli.shared.batch_display import BatchDisplay
from hunyuan_local.jobs.worker_reports import WorkerReport
from hunyuan_local.schema import GenerationRequest


def said(batch: Batch, *, stops: bool = False) -> str:
    """The one line of a log."""
    out = io.StringIO()
    BatchDisplay(Console(file=out), batch, 1, lambda: stops).update()
    return out.getvalue()


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    """One video to generate."""
    request = GenerationRequest(prompt="a cat", width=144, height=80, num_frames=1, num_inference_steps=1, seed=1)
    wanted, _ = wanted_items([BatchItem(1, request)], Maker("tiny", "", {}))
    batch = Batch(wanted, Destination(str(tmp_path)), "tiny", Capabilities())
    batch.prepare()
    return batch


def report(batch: Batch, state: str, note: str = "") -> None:
    batch.store.worker_reports.report(
        WorkerReport(name="worker0", pid=1, model="tiny", device="not loaded", state=state, note=note)
    )


def test_before_a_worker_is_there_they_begin(batch: Batch) -> None:
    assert said(batch) == "0 of 1 videos: workers are starting\n"


def test_a_worker_that_loads_says_so(batch: Batch) -> None:
    report(batch, "loading")
    assert said(batch) == "0 of 1 videos: workers are loading the libraries and the model\n"


def test_a_worker_that_has_more_to_say_is_quoted(batch: Batch) -> None:
    report(batch, "loading", "1 of 2 prompts encoded")
    assert said(batch) == "0 of 1 videos: 1 of 2 prompts encoded\n"


def test_between_two_videos_nobody_begins_to_work(batch: Batch) -> None:
    report(batch, "idle")
    assert said(batch) == "0 of 1 videos: starting the next video\n"


def test_workers_asked_to_end_do(batch: Batch) -> None:
    assert said(batch, stops=True) == "0 of 1 videos: workers are saving their state and stopping\n"


def test_a_batch_that_has_ended_says_nothing_of_its_workers(batch: Batch) -> None:
    job = batch.store.claim("worker0", "tiny", 60)
    batch.store.fail(job, "oh")
    batch._look()
    assert said(batch) == "line 1 failed: oh\n"
