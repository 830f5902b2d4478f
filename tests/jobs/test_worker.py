"""A worker with the built-in model: jobs run, cancelled, released, and resumed where another worker stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.local.decode_and_write import PendingVideo
from hunyuan_local.errors import GenerationCancelledError, SpendingLimitError, UnreachableError, VideoError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker import Worker
from hunyuan_local.jobs.worker_config import WorkerConfig
from hunyuan_local.jobs.worker_reports import WorkerReports
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult
from hunyuan_local.video import probe


class Meddler:
    """The local backend, with an action of the test during a generation, at a stage and step."""

    def __init__(self, backend: LocalBackend, at: tuple[str, int], do: Callable[[], None]):
        self._backend, self._at, self._do = backend, at, do

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def start(self, request: GenerationRequest, context: GenerationContext) -> PendingVideo:
        reported = context.on_progress

        def meddle(progress) -> None:
            reported(progress)
            if (progress.stage, progress.step) == self._at:
                self._at = None
                self._do()

        context.on_progress = meddle
        return self._backend.start(request, context)


def work_until(store: JobStore, worker: Worker, done: Callable[[], bool]) -> None:
    """Run a worker in the test's thread until a condition is true."""

    def watch() -> None:
        while not done():
            pause.wait(0.05)
        worker.stop()

    pause = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    worker.run()
    watcher.join()


def make(folder: DataFolder, store: JobStore, backend: object, job: Job, **config: float) -> Job:
    """Run a worker until the job has finished; returns the job."""
    settings = {"beat_s": 0.05, "poll_s": 0.05, "pause_s": 0.05} | config
    worker = Worker(folder, store, backend, WorkerConfig(name="w", **settings))
    work_until(store, worker, lambda: store.get(job.job_id).is_finished)
    return store.get(job.job_id)


SMALL = GenerationRequest(
    prompt="a red circle moving right", width=144, height=80, num_frames=5, num_inference_steps=2, seed=7
)


def frames_hash(folder: DataFolder, job: Job) -> str:
    return read_provenance(folder.video(job)).frames_sha256


@pytest.fixture
def job(store: JobStore, tiny: LocalBackend, small_request: GenerationRequest) -> Job:
    return store.enqueue(small_request, tiny.config.identity)


@dataclass(frozen=True)
class Done:
    """A job that a worker has finished, and one for another model."""

    folder: DataFolder
    store: JobStore
    job: Job
    other: Job


@pytest.fixture(scope="module")
def done(tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = DataFolder(tmp_path_factory.mktemp("done"))
    store = folder.store()
    other, job = store.enqueue(SMALL, "another"), store.enqueue(SMALL, tiny.config.identity)
    return Done(folder, store, make(folder, store, tiny, job), store.get(other.job_id))


def test_a_job_becomes_a_video(done: Done) -> None:
    assert (done.job.status, probe(done.folder.video(done.job)).num_frames) == ("succeeded", 5)


def test_the_result_is_kept(done: Done) -> None:
    assert done.job.result["provenance"]["frames_sha256"] == frames_hash(done.folder, done.job)


def test_no_state_of_a_finished_video_stays(done: Done) -> None:
    assert not done.folder.unfinished(done.job).exists()


def test_a_job_of_another_model_is_left(done: Done) -> None:
    assert done.other.status == "queued"


def test_a_worker_that_ended_is_off_the_roster(done: Done) -> None:
    assert WorkerReports(done.store.database).recent() == []


def test_a_running_job_is_cancelled_within_a_step(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    job = store.enqueue(small_request.replace(num_inference_steps=100), tiny.config.identity)
    meddler = Meddler(tiny, ("denoise", 2), lambda: store.cancel(job.job_id))
    done = make(folder, store, meddler, job)
    assert (done.status, done.progress.step < 99) == ("canceled", True)


def test_a_worker_that_ends_gives_its_job_back(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    job = store.enqueue(small_request.replace(num_inference_steps=100), tiny.config.identity)
    worker = Worker(folder, store, Meddler(tiny, ("denoise", 3), lambda: worker.stop()), WorkerConfig(name="w"))
    worker.run()
    assert (store.get(job.job_id).status, store.get(job.job_id).attempts) == ("queued", 0)


@pytest.fixture(scope="module")
def taken_up(tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> tuple[DataFolder, Job]:
    """A job that one worker started and the next one finished."""
    folder = DataFolder(tmp_path_factory.mktemp("taken-up"))
    store = folder.store()
    job = store.enqueue(SMALL.replace(num_inference_steps=6), tiny.config.identity)
    worker = Worker(folder, store, Meddler(tiny, ("denoise", 3), lambda: worker.stop()), WorkerConfig(name="w"))
    worker.run()
    return folder, make(folder, store, tiny, job)


def test_the_next_worker_continues_and_the_frames_are_the_same(
    taken_up: tuple[DataFolder, Job], tiny: LocalBackend, tmp_path: Path
) -> None:
    folder, job = taken_up
    whole = tiny.generate(SMALL.replace(num_inference_steps=6), GenerationContext(tmp_path / "whole.mp4"))
    assert frames_hash(folder, job) == whole.provenance["frames_sha256"]


def test_it_does_continue_and_not_begin_anew(taken_up: tuple[DataFolder, Job]) -> None:
    assert any("resuming after step 3" in note for note in taken_up[1].result["notes"])


def fail_once(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture(scope="module")
def failed_once(tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job whose first decoding failed."""
    folder = DataFolder(tmp_path_factory.mktemp("failed-once"))
    store = folder.store()
    meddler = Meddler(tiny, ("decode", 0), fail_once(VideoError("the disk is full")))
    return make(folder, store, meddler, store.enqueue(SMALL, tiny.config.identity))


def test_a_failure_that_may_pass_is_tried_again(failed_once: Job) -> None:
    assert (failed_once.status, failed_once.attempts) == ("succeeded", 2)


def test_after_a_failed_decoding_only_the_decoding_is_repeated(failed_once: Job) -> None:
    assert failed_once.result["timings"]["denoise_s"] == 0


def test_after_the_last_attempt_the_reason_is_reported(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    job = store.enqueue(small_request, tiny.config.identity, max_attempts=1)
    meddler = Meddler(tiny, ("decode", 0), fail_once(VideoError("the disk is full")))
    done = make(folder, store, meddler, job)
    assert (done.status, done.error) == ("failed", "the disk is full (attempt 1 of 1)")


def test_a_service_that_cannot_be_reached_is_asked_again_and_costs_no_attempt(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job
) -> None:
    meddler = Meddler(tiny, ("decode", 0), fail_once(UnreachableError("no route")))
    done = make(folder, store, meddler, job)
    assert (done.status, done.attempts) == ("succeeded", 1)


def test_a_service_that_stays_away_ends_the_worker_and_gives_the_job_back(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job
) -> None:
    class Away(Meddler):
        def start(self, request: GenerationRequest, context: GenerationContext) -> PendingVideo:
            raise UnreachableError("no route")

    config = WorkerConfig(name="w", pause_s=0.05, patience_s=0.2)
    with pytest.raises(UnreachableError):
        Worker(folder, store, Away(tiny, ("", 0), lambda: None), config).run()
    assert (store.get(job.job_id).status, store.get(job.job_id).attempts) == ("queued", 0)


def test_what_may_not_be_paid_for_is_set_aside_and_the_next_job_is_made(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job, small_request: GenerationRequest
) -> None:
    second = store.enqueue(small_request, tiny.identity)
    meddler = Meddler(tiny, ("decode", 0), fail_once(SpendingLimitError("max_cost=1: no more")))
    make(folder, store, meddler, second)
    first = store.get(job.job_id)
    assert (first.status, first.error, store.get(second.job_id).status) == (
        "canceled", "max_cost=1: no more", "succeeded",
    )  # fmt: skip


def test_an_unexpected_error_ends_the_worker(folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job) -> None:
    worker = Worker(
        folder, store, Meddler(tiny, ("decode", 0), fail_once(ZeroDivisionError("oh"))), WorkerConfig(name="w")
    )
    with pytest.raises(ZeroDivisionError):
        worker.run()


def test_an_unexpected_error_releases_the_job(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job
) -> None:
    worker = Worker(
        folder, store, Meddler(tiny, ("decode", 0), fail_once(ZeroDivisionError("oh"))), WorkerConfig(name="w")
    )
    with pytest.raises(ZeroDivisionError):
        worker.run()
    assert store.get(job.job_id).status == "queued"


def test_a_worker_that_lost_its_lease_changes_nothing(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job
) -> None:
    def take_away() -> None:
        store.expire("w")
        store.claim("another", tiny.config.identity, 60)
        worker.stop()

    worker = Worker(folder, store, Meddler(tiny, ("decode", 0), take_away), WorkerConfig(name="w"))
    worker.run()
    assert (store.get(job.job_id).status, store.get(job.job_id).worker) == ("running", "another")


class SlowFiles(Meddler):
    """The local backend, where the first file is finished only after the second video has started."""

    def __init__(self, backend: LocalBackend):
        super().__init__(backend, ("", 0), lambda: None)
        self._second = threading.Event()
        self.starts = 0

    def start(self, request: GenerationRequest, context: GenerationContext) -> PendingVideo | SlowFiles:
        self.starts += 1
        if self.starts == 2:
            self._second.set()
        pending = self._backend.start(request, context)
        return pending if self.starts > 1 else Later(pending, self._second)


class Later:
    """A pending video; waiting for it too early is an error."""

    def __init__(self, pending: PendingVideo, event: threading.Event):
        self._pending, self._event = pending, event

    def result(self) -> GenerationResult:
        assert self._event.wait(60), "the next video is not begun before this file is finished"
        return self._pending.result()


def test_the_next_video_is_begun_while_a_file_is_finished(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    jobs = [store.enqueue(small_request.replace(seed=seed), tiny.config.identity) for seed in (1, 2)]
    make(folder, store, SlowFiles(tiny), jobs[1])
    assert [store.get(job.job_id).status for job in jobs] == ["succeeded", "succeeded"]


def test_a_file_that_an_earlier_attempt_finished_is_not_made_again(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    request = tiny.resolve(small_request)
    job = store.enqueue(request, tiny.config.identity)
    tiny.generate(request, GenerationContext(folder.video(job)))
    made_at = folder.video(job).stat().st_mtime_ns
    done = make(folder, store, tiny, job)
    assert (done.status, folder.video(job).stat().st_mtime_ns) == ("succeeded", made_at)


def test_a_file_of_another_request_is_no_reason_not_to_make_it(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    job = store.enqueue(tiny.resolve(small_request), tiny.config.identity)
    tiny.generate(small_request.replace(seed=77), GenerationContext(folder.video(job)))
    make(folder, store, tiny, job)
    assert read_provenance(folder.video(job)).request == job.request


@dataclass(frozen=True)
class Ahead:
    """A separate backend, after a worker first encoded the prompts of three jobs, two of them equal."""

    backend: LocalBackend
    folder: DataFolder
    jobs: list[Job]


@pytest.fixture(scope="module")
def ahead(loads_model: None, tmp_path_factory: pytest.TempPathFactory) -> Ahead:
    backend, folder = LocalBackend("tiny", "cpu"), DataFolder(tmp_path_factory.mktemp("ahead"))
    store = folder.store()
    prompts = ("a red circle", "a blue square", "a red circle")
    jobs = [store.enqueue(SMALL.replace(prompt=prompt), backend.identity) for prompt in prompts]
    make(folder, store, backend, jobs[-1], encode_ahead=True)
    return Ahead(backend, folder, [store.get(job.job_id) for job in jobs])


def test_each_distinct_prompt_is_encoded_once(ahead: Ahead) -> None:
    assert len(list(ahead.folder.prompts.glob("prompt-*.safetensors"))) == 2


def test_after_the_encoding_ahead_the_text_encoders_are_gone(ahead: Ahead) -> None:
    pipe = ahead.backend.load().pipe
    assert (pipe.text_encoder, pipe.text_encoder_2) == (None, None)


def test_the_frames_are_the_same_with_prompts_encoded_ahead(ahead: Ahead, tiny: LocalBackend, tmp_path: Path) -> None:
    job = ahead.jobs[-1]
    whole = tiny.generate(job.request, GenerationContext(tmp_path / "whole.mp4"))
    assert frames_hash(ahead.folder, job) == whole.provenance["frames_sha256"]


@pytest.mark.parametrize(("is_cancelled", "keeps"), [(False, True), (True, False)])
def test_a_lost_job_leaves_the_services_task_open_and_a_cancelled_one_does_not(
    folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job, is_cancelled: bool, keeps: bool
) -> None:
    seen: list[GenerationContext] = []

    class Hosted(Meddler):
        def start(self, request: GenerationRequest, context: GenerationContext) -> PendingVideo:
            seen.append(context)
            store.cancel(job.job_id) if is_cancelled else store.give_back(store.get(job.job_id))
            context.cancel.wait(60)
            keeps_remote.append(context.keep_remote)
            worker.stop()
            raise GenerationCancelledError("stopped")

    keeps_remote: list[bool] = []
    worker = Worker(
        folder, store, Hosted(tiny, ("", 0), lambda: None), WorkerConfig(name="w", beat_s=0.05, poll_s=0.05)
    )
    worker.run()
    assert (len(seen), keeps_remote) == (1, [keeps])


def test_no_job_is_begun_on_a_full_disk(folder: DataFolder, store: JobStore, tiny: LocalBackend, job: Job) -> None:
    worker = Worker(folder, store, tiny, WorkerConfig(name="w", beat_s=0.05, pause_s=0.05, min_free_bytes=2**62))
    work_until(store, worker, lambda: [w.state for w in WorkerReports(store.database).recent()] == ["waiting"])
    assert store.get(job.job_id).status == "queued"


def test_the_roster_says_what_it_waits_for(folder: DataFolder, store: JobStore, tiny: LocalBackend) -> None:
    seen = []

    def waits() -> bool:
        seen.extend(w.note for w in WorkerReports(store.database).recent() if w.state == "waiting")
        return bool(seen)

    worker = Worker(folder, store, tiny, WorkerConfig(name="w", beat_s=0.05, pause_s=0.05, min_free_bytes=2**62))
    work_until(store, worker, waits)
    assert "bytes free" in seen[0]
