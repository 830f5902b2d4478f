"""Running a batch with the built-in model: only what is missing is generated, whatever happened before."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.batch import run
from hunyuan_local.batch.destination import Destination
from hunyuan_local.batch.file import BatchItem
from hunyuan_local.batch.forecast import seconds_left
from hunyuan_local.batch.items import Maker, wanted_items
from hunyuan_local.batch.run import Batch
from hunyuan_local.batch.service_pool import ServicePool
from hunyuan_local.batch.summary import Summary
from hunyuan_local.errors import AuthenticationError, HunyuanLocalError, InvalidOutputError, VideoError
from hunyuan_local.jobs.worker_config import WorkerConfig
from hunyuan_local.jobs.worker_reports import WorkerReport
from hunyuan_local.provenance import read_provenance, statement_path
from hunyuan_local.schema import GenerationRequest

FAST = WorkerConfig(beat_s=0.05, poll_s=0.05, pause_s=0.05)


class Counting:
    """The local backend, with a count of requested videos and a prompt for which it fails."""

    def __init__(self, backend: LocalBackend):
        self._backend, self.asked, self.fails_at = backend, [], ""
        self.error: Exception = InvalidOutputError("every frame is black")

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def close(self) -> None:
        """Uses the backend shared by the session."""

    def start(self, request: GenerationRequest, context: object) -> object:
        self.asked.append(request)
        if request.prompt == self.fails_at:
            raise self.error
        return self._backend.start(request, context)


class Stage:
    """One destination, and runs of batches for it."""

    def __init__(self, folder: Path, tiny: LocalBackend, request: GenerationRequest):
        self.folder, self.backend, self._request = folder, Counting(tiny), request
        self.where = str(folder)

    def batch(self, *prompts: str, **fields: object) -> Batch:
        items = [
            BatchItem(line, self._request.replace(prompt=prompt, **fields)) for line, prompt in enumerate(prompts, 1)
        ]
        maker = Maker(self.backend.identity, "weights", dict(self.backend.capabilities.defaults))
        wanted, _ = wanted_items(items, maker)
        return Batch(wanted, Destination(self.where), self.backend.identity, self.backend.capabilities)

    def work(self, batch: Batch, *, retry_failed: bool = False, watch: Callable[[], None] = lambda: None) -> Summary:
        batch.prepare(retry_failed=retry_failed)
        batch.work(self.pool(batch), threading.Event(), watch)
        return Summary(batch, 1.0)

    def pool(self, batch: Batch) -> ServicePool:
        return ServicePool(batch.folder, batch.store, lambda: self.backend, 1, None, FAST)

    @property
    def videos(self) -> list[Path]:
        return sorted(self.folder.glob("*.mp4"))


@pytest.fixture
def stage(
    tmp_path: Path, tiny: LocalBackend, small_request: GenerationRequest, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    monkeypatch.setattr(run, "_LEAST_S", 0.02)  # between two polls
    monkeypatch.setattr(run, "_LOOK_S", 0.1)
    return Stage(tmp_path / "out", tiny, small_request)


def test_every_item_becomes_a_file(stage: Stage) -> None:
    summary = stage.work(stage.batch("a red circle", "a blue square"))
    assert (len(stage.videos), summary.counts["done"], summary.is_complete) == (2, 2, True)


def test_the_file_says_what_was_asked_for(stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    assert read_provenance(stage.videos[0]).request.prompt == "a red circle"


def test_the_same_batch_again_makes_nothing(stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    summary = stage.work(stage.batch("a red circle"))
    assert (len(stage.backend.asked), summary.made, summary.is_complete) == (1, 0, True)


def test_a_line_that_is_added_is_all_that_is_made(stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    stage.work(stage.batch("a red circle", "a blue square"))
    assert [request.prompt for request in stage.backend.asked] == ["a red circle", "a blue square"]


def test_a_changed_line_is_made_next_to_the_old_video(stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    stage.work(stage.batch("a blue circle"))
    assert len(stage.videos) == 2


def test_a_line_that_is_put_above_others_makes_none_of_them_again(stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    summary = stage.work(stage.batch("a blue square", "a red circle"))
    assert ([request.prompt for request in stage.backend.asked], summary.is_complete) == (
        ["a red circle", "a blue square"], True,
    )  # fmt: skip


def test_a_line_that_was_taken_out_is_no_longer_made(stage: Stage) -> None:
    stage.batch("a red circle", "a blue square").prepare()
    stage.work(stage.batch("a blue square"))
    assert [request.prompt for request in stage.backend.asked] == ["a blue square"]


def test_a_line_that_comes_back_is_made(stage: Stage) -> None:
    stage.batch("a red circle").prepare()
    stage.batch("a blue square").prepare()
    assert stage.work(stage.batch("a red circle")).is_complete


def test_a_deleted_file_is_made_again_with_the_same_seed(stage: Stage) -> None:
    stage.work(stage.batch("a red circle", seed=None))
    (first,) = stage.videos
    before = read_provenance(first).frames_sha256
    first.unlink()
    stage.work(stage.batch("a red circle", seed=None))
    assert (stage.videos, read_provenance(first).frames_sha256) == ([first], before)


def test_a_seed_that_was_drawn_is_kept_over_an_interruption(stage: Stage) -> None:
    stage.batch("a red circle", seed=None).prepare()
    again = stage.batch("a red circle", seed=None)
    again.prepare()
    assert len(again.store.find()) == 1


def test_one_failed_item_does_not_stop_the_rest(stage: Stage) -> None:
    stage.backend.fails_at = "a red circle"
    summary = stage.work(stage.batch("a red circle", "a blue square"))
    assert (summary.counts["done"], summary.failures) == (1, [(1, "every frame is black")])
    assert summary.left == 0 and not summary.is_complete


def test_what_has_failed_is_not_tried_again_by_itself(stage: Stage) -> None:
    stage.backend.fails_at = "a red circle"
    stage.work(stage.batch("a red circle"))
    summary = stage.work(stage.batch("a red circle"))
    assert (len(stage.backend.asked), summary.counts["failed"]) == (1, 1)


def test_what_has_failed_is_tried_again_on_request(stage: Stage) -> None:
    stage.backend.fails_at = "a red circle"
    stage.work(stage.batch("a red circle"))
    stage.backend.fails_at = ""
    assert stage.work(stage.batch("a red circle"), retry_failed=True).is_complete


def test_a_video_that_was_made_and_not_delivered_is_only_delivered(stage: Stage) -> None:
    batch = stage.batch("a red circle")
    batch.prepare()
    batch.destination.deliver = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # the process ends there
    with pytest.raises(KeyboardInterrupt):
        batch.work(stage.pool(batch), threading.Event(), lambda: None)
    summary = stage.work(stage.batch("a red circle"))
    assert (len(stage.backend.asked), len(stage.videos), summary.is_complete) == (1, 1, True)


@pytest.fixture
def half_delivered(stage: Stage) -> tuple[Batch, Summary]:
    """A batch whose destination takes the video, but not the file with its history."""
    batch = stage.batch("a red circle")
    batch.prepare()
    statement_path(batch.folder.video(batch.unfinished()[0])).write_text("{}")
    deliver = batch.destination.deliver

    def take_no_json(file: Path, name: str) -> None:
        if name.endswith(".json"):
            raise VideoError(f"{name}: not taken")
        deliver(file, name)

    batch.destination.deliver = take_no_json
    batch.work(stage.pool(batch), threading.Event(), lambda: None)
    return batch, Summary(batch, 1.0)


def test_a_history_that_cannot_be_delivered_does_not_hold_back_the_video(
    half_delivered: tuple[Batch, Summary], stage: Stage
) -> None:
    batch, summary = half_delivered
    assert (len(stage.videos), summary.is_complete) == (1, True)
    assert batch.notes == [
        f"line 1: the video is delivered without its history: {stage.videos[0].name}.json: not taken"
    ]


def test_the_next_run_delivers_the_history(half_delivered: tuple[Batch, Summary], stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    assert (len(stage.backend.asked), statement_path(stage.videos[0]).read_text()) == (1, "{}")


def dead_pid() -> int:
    """A process id that does not exist."""
    return next(pid for pid in range(30_000, 1, -1) if not psutil.pid_exists(pid))


def test_a_job_of_a_worker_that_is_dead_is_not_waited_for(stage: Stage) -> None:
    batch = stage.batch("a red circle")
    batch.prepare()
    report = WorkerReport(name="w", pid=dead_pid(), model=batch.identity, device="cpu", state="working")
    batch.store.worker_reports.report(report)
    batch.store.claim("w", batch.identity, 3600)
    assert stage.work(stage.batch("a red circle")).is_complete


def test_a_run_that_dies_costs_an_item_no_attempt(stage: Stage) -> None:
    batch = stage.batch("a red circle")
    batch.prepare()
    for _ in range(5):
        report = WorkerReport(name="w", pid=dead_pid(), model=batch.identity, device="cpu", state="working")
        batch.store.worker_reports.report(report)
        batch.store.claim("w", batch.identity, 3600)
        batch = stage.batch("a red circle")
        batch.prepare()
    assert stage.work(stage.batch("a red circle")).is_complete


def test_a_clock_that_was_set_back_hides_no_end(stage: Stage) -> None:
    stage.work(stage.batch("a red circle"))
    stage.batch().store.database.run("UPDATE jobs SET finished_at = finished_at + 100000", ())
    assert stage.work(stage.batch("a red circle", "a blue square")).is_complete


def test_a_job_that_was_deleted_by_hand_ends_the_wait(stage: Stage) -> None:
    batch = stage.batch("a red circle")
    batch.prepare()
    batch.store.cancel(batch.unfinished()[0].job_id)
    batch.store.delete(batch.unfinished()[0].job_id)
    batch.work(stage.pool(batch), threading.Event(), lambda: None)
    assert batch.states()[0].status == "waiting"


def test_a_video_that_went_to_a_url_has_its_picture_on_the_page(stage: Stage) -> None:
    stage.where = f"memory://batch-{uuid.uuid4()}"
    (row,) = stage.work(stage.batch("a red circle")).rows()
    assert row.video.startswith("memory://") and row.poster.read_bytes().startswith(b"\xff\xd8")


def test_threads_that_end_of_something_unforeseen_say_so(stage: Stage) -> None:
    stage.backend.fails_at, stage.backend.error = "a red circle", ZeroDivisionError("oh")
    batch = stage.batch("a red circle")
    batch.prepare()
    with pytest.raises(HunyuanLocalError, match="unexpected ZeroDivisionError: oh"):
        batch.work(stage.pool(batch), threading.Event(), lambda: None)


def test_threads_that_end_of_an_error_of_ours_end_the_batch_with_it(stage: Stage) -> None:
    stage.backend.fails_at, stage.backend.error = "a red circle", AuthenticationError("no such key")
    batch = stage.batch("a red circle", "a blue square")
    batch.prepare()
    with pytest.raises(AuthenticationError, match="no such key"):
        batch.work(stage.pool(batch), threading.Event(), lambda: None)
    assert [state.status for state in batch.states()] == ["waiting", "waiting"]


def test_a_batch_that_is_stopped_continues_with_the_next_run(stage: Stage) -> None:
    batch, stopping = stage.batch("a red circle", "a blue square"), threading.Event()
    batch.prepare()
    batch.work(stage.pool(batch), stopping, lambda: stopping.set() if batch.made else None)
    assert stage.work(stage.batch("a red circle", "a blue square")).is_complete


def test_workers_that_die_again_and_again_end_the_batch(stage: Stage) -> None:
    batch = stage.batch("a red circle")
    batch.prepare()

    class Dying:
        size, deaths, last_words, has_ended, error = 1, 0, "the model cannot be loaded", False, None

        def tick(self) -> None:
            self.deaths += 1

        def stop(self, grace_s: float) -> None:
            pass

    with pytest.raises(HunyuanLocalError, match="the model cannot be loaded"):
        batch.work(Dying(), threading.Event(), lambda: None)


@pytest.fixture
def watched(stage: Stage) -> Iterator[list[float | None]]:
    """The estimates during a batch of two videos."""
    batch, found = stage.batch("a red circle", "a blue square"), []
    stage.work(batch, watch=lambda: found.append(seconds_left(batch, [job for _, job in batch.running()], 1)))
    yield found


def test_the_time_left_is_forecast_once_a_step_was_measured(watched: list[float | None]) -> None:
    assert any(seconds for seconds in watched if seconds is not None)


def test_at_the_end_no_time_is_left(watched: list[float | None]) -> None:
    assert watched[-1] == 0
