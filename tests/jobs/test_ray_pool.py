"""Replicas in a real Ray cluster of two nodes, one of which is killed during its video."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import image_models
import psutil
import pytest
from PIL import Image

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import load_model_config
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.ray_workers import pool as ray_pool
from hunyuan_local.jobs.ray_workers.cluster import import_ray
from hunyuan_local.jobs.ray_workers.pool import RayPool
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker_config import WorkerOptions
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from server_process import ServerProcess

TINY = load_model_config("tiny")
OPTIONS = WorkerOptions(model=TINY, profile="cpu")
FAST = WorkerOptions(model=TINY, profile="cpu", lease_s=4.0, beat_s=0.1, poll_s=0.1, checkpoint_every=2)
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 1024**2, "include_dashboard": False}
LONG, SHORT = 60, 2  # steps
PATIENCE_S = 240


@pytest.fixture(scope="module")
def cluster(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes on this machine with a core each; everything is removed afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # no key is written to the user's home folder
        import_ray()
        from ray.cluster_utils import Cluster

        before = set(psutil.Process().children(recursive=True))
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()
        _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, 30)
        assert not alive


def processes_of(node: Any) -> list[psutil.Process]:
    """The processes of a node of the cluster: its raylet and what that started."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [*raylet.children(recursive=True), raylet]


@dataclass
class Batch:
    """A pool that works on a store, observed from outside."""

    folder: DataFolder
    store: JobStore
    pool: RayPool
    handler: Any  # the handler of SIGTERM before the pool was created
    pids: dict[str, set[int]] = field(default_factory=dict)  # by job: the replicas that worked on it

    def enqueue(self, request: GenerationRequest) -> Job:
        return self.store.enqueue(request, TINY.identity)

    def wait_until(self, look: Callable[[], Any]) -> Any:
        """Poll ``look`` until it returns something; returns that."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            assert time.monotonic() < deadline, "timed out"
            self.pool.tick()
            for report in self.store.worker_reports.recent():
                if report.state == "working":
                    self.pids.setdefault(report.note, set()).add(report.pid)
            time.sleep(0.05)
        return found

    def step_of(self, job: Job) -> int:
        progress = self.store.get(job.job_id).progress
        return progress.step if progress is not None and progress.stage == "denoise" else 0

    def saved_state(self, job: Job) -> list[Path]:
        return list(self.folder.unfinished(job).glob("*.safetensors"))


@pytest.fixture(scope="module")
def batch(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    folder = DataFolder(tmp_path_factory.mktemp("data"))
    store = folder.store()
    handler = signal.getsignal(signal.SIGTERM)
    pool = RayPool(store, folder, FAST, 2, address=cluster.address)
    yield Batch(folder, store, pool, handler)
    pool.stop(grace_s=20)


@dataclass
class Outcome:
    """The outcome of a batch."""

    batch: Batch
    jobs: list[Job]
    killed: Job  # whose node was killed
    step_at_the_kill: int
    pids: dict[str, set[int]]  # of the nodes: head and other
    log: str  # what was written to standard error


@pytest.fixture(scope="module")
def outcome(cluster: Any, batch: Batch) -> Outcome:
    """Two long videos, one on each node, and short ones; then one node is killed."""
    request = GenerationRequest(prompt="a red circle", width=144, height=80, num_frames=5, num_inference_steps=LONG)
    (other,) = cluster.worker_nodes

    def job_of_the_other_node() -> Job | None:
        """The job that it works on, once that is well under way."""
        ours = [job for job in long if batch.pids.get(job.job_id, {0}) <= pids and batch.step_of(job) > 10]
        return next((job for job in ours if batch.saved_state(job)), None)

    with contextlib.redirect_stderr(io.StringIO()) as log:
        batch.wait_until(lambda: [report.state for report in batch.store.worker_reports.recent()] == ["idle"] * 2)
        head, pids = ({process.pid for process in processes_of(node)} for node in (cluster.head_node, other))
        long = [batch.enqueue(request.replace(seed=seed)) for seed in (1, 2)]
        short = [batch.enqueue(request.replace(seed=seed, num_inference_steps=SHORT)) for seed in (3, 4)]
        jobs = [*long, *short]
        killed = batch.wait_until(job_of_the_other_node)
        step = batch.step_of(killed)
        for process in reversed(processes_of(other)):
            process.send_signal(signal.SIGKILL)
        batch.wait_until(lambda: all(batch.store.get(job.job_id).is_finished for job in jobs))
        batch.wait_until(lambda: all(f"job {job.job_id}: done in" in log.getvalue() for job in jobs))
    head |= {process.pid for process in processes_of(cluster.head_node)}  # a new replica may have started there
    ended = [batch.store.get(job.job_id) for job in jobs]
    return Outcome(batch, ended, killed, step, {"head": head, "other": pids}, log.getvalue())


@pytest.mark.timeout(600)
def test_nothing_is_lost(outcome: Outcome) -> None:
    assert [job.status for job in outcome.jobs] == ["succeeded"] * 4


def test_nothing_is_made_twice(outcome: Outcome) -> None:
    said = outcome.log
    assert [said.count(f"job {job.job_id}: done in") for job in outcome.jobs] == [1] * 4


def test_the_owner_has_every_video_and_no_other_file(outcome: Outcome) -> None:
    files = {path.name for path in (outcome.batch.folder.root / "videos").iterdir()}
    assert files == {f"{job.job_id}.mp4" for job in outcome.jobs}


def test_no_saved_state_of_a_finished_video_stays_with_the_owner(outcome: Outcome) -> None:
    assert list((outcome.batch.folder.root / "unfinished").iterdir()) == []


def test_both_nodes_have_worked(outcome: Outcome) -> None:
    at_work = set().union(*outcome.batch.pids.values())
    assert at_work & outcome.pids["head"] and at_work & outcome.pids["other"]


def test_the_killed_nodes_job_was_resumed_on_the_other(outcome: Outcome) -> None:
    job = outcome.batch.store.get(outcome.killed.job_id)
    assert (job.attempts, bool(outcome.batch.pids[job.job_id] & outcome.pids["head"])) == (2, True)


def test_it_went_on_from_the_last_saved_state(outcome: Outcome) -> None:
    notes = outcome.batch.store.get(outcome.killed.job_id).result["notes"]
    (step,) = [int(found[1]) for note in notes if (found := re.search(r"resuming after step (\d+)", note))]
    assert step >= outcome.step_at_the_kill - FAST.checkpoint_every - 1 > 0


def test_its_frames_are_those_of_a_run_in_one_piece(outcome: Outcome, tiny: LocalBackend, tmp_path: Path) -> None:
    whole = tiny.generate(outcome.killed.request, GenerationContext(tmp_path / "whole.mp4"))
    made = read_provenance(outcome.batch.folder.video(outcome.killed))
    assert made.frames_sha256 == whole.provenance["frames_sha256"]


def test_what_replicas_log_comes_with_their_names(outcome: Outcome) -> None:
    assert re.search(r"\((replica\d-\S+) pid=.*\1 is ready", outcome.log)


def test_a_dead_replica_is_noticed_and_another_one_is_asked_for(outcome: Outcome) -> None:
    batch = outcome.batch
    batch.wait_until(lambda: batch.pool.deaths == 1)
    batch.wait_until(lambda: all(slot.actor is not None for slot in batch.pool._slots))
    assert "its machine" in batch.pool.last_words


def test_the_handler_of_sigterm_is_still_the_callers(batch: Batch) -> None:
    assert signal.getsignal(signal.SIGTERM) is batch.handler


@pytest.mark.timeout(600)
def test_a_cancelled_job_ends_within_its_video(outcome: Outcome) -> None:
    batch = outcome.batch
    job = batch.enqueue(outcome.killed.request.replace(num_inference_steps=100))
    batch.wait_until(lambda: batch.step_of(job) >= 1)
    batch.store.cancel(job.job_id)
    batch.wait_until(lambda: batch.store.get(job.job_id).is_finished)
    done = batch.store.get(job.job_id)
    assert (done.status, done.progress.step < 99) == ("canceled", True)


@pytest.mark.timeout(600)
def test_the_end_gives_the_running_job_back_with_its_state(outcome: Outcome) -> None:
    batch = outcome.batch
    job = batch.enqueue(outcome.killed.request.replace(num_inference_steps=100))
    batch.wait_until(lambda: batch.step_of(job) >= 1)
    batch.pool.ask_to_end()
    batch.pool.stop(grace_s=60)
    given = batch.store.get(job.job_id)
    assert (given.status, given.attempts, len(batch.saved_state(job))) == ("queued", 0, 1)


def test_replicas_that_ended_are_off_the_roster(batch: Batch) -> None:
    batch.pool.stop(grace_s=60)
    assert batch.store.worker_reports.recent() == []


@pytest.fixture(scope="module")
def driver(cluster: Any, batch: Batch) -> Iterator[None]:
    """This process connects to the cluster, so that the pools do not have to."""
    batch.pool.stop(grace_s=60)
    import_ray().init(cluster.address, logging_level="error")
    yield
    import_ray().shutdown()


def last_words(folder: DataFolder, store: JobStore, options: WorkerOptions) -> str:
    """The error of the first replica that died."""
    pool = RayPool(store, folder, options, 1)
    try:
        Batch(folder, store, pool, None).wait_until(lambda: pool.deaths)
        return pool.last_words
    finally:
        pool.stop(grace_s=0)


def test_a_node_with_another_version_of_the_package_is_refused(
    driver: None, folder: DataFolder, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pool, "library_versions", lambda: {"hunyuan-local": "0.0.7"})
    assert "0.0.7 there; install the same" in last_words(folder, store, OPTIONS)


def test_what_a_replica_cannot_load_is_reported(driver: None, folder: DataFolder, store: JobStore) -> None:
    assert "profile='nowhere': not known" in last_words(folder, store, WorkerOptions(model=TINY, profile="nowhere"))


def test_a_replica_that_is_killed_at_the_end_costs_its_job_no_attempt(
    driver: None, folder: DataFolder, store: JobStore, small_request: GenerationRequest
) -> None:
    job = store.enqueue(small_request, TINY.identity)
    pool = RayPool(store, folder, OPTIONS, 1)
    pool.tick()
    store.claim(pool._slots[0].name, TINY.identity, lease_s=60)
    pool.stop(grace_s=0)
    assert (store.get(job.job_id).status, store.get(job.job_id).attempts) == ("queued", 0)


@pytest.mark.timeout(600)
def test_a_video_begins_with_an_image_of_the_owner(
    driver: None, folder: DataFolder, store: JobStore, tmp_path: Path
) -> None:
    config = image_models.make_checkpoint(tmp_path / "model", "token_replace")
    request = GenerationRequest(
        prompt="a red circle", image=Image.new("RGB", (80, 144), "red"), num_frames=5, num_inference_steps=SHORT
    )
    folder.keep_image(request)
    job = store.enqueue(request, config.identity)
    pool = RayPool(store, folder, WorkerOptions(model=config, profile="cpu", poll_s=0.1), 1)
    try:
        Batch(folder, store, pool, None).wait_until(lambda: store.get(job.job_id).is_finished)
    finally:
        pool.stop(grace_s=20)
    assert read_provenance(folder.video(job)).request.image.sha256 == request.image.sha256


@pytest.fixture(scope="module")
def server(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[psutil.Process]]:
    """Outcome of a job in a server that started its own Ray, and the processes left after SIGTERM."""
    folder = tmp_path_factory.mktemp("server")
    server = ServerProcess(
        folder / "data", folder / "serve.log", "--model", "tiny", "--profile", "cpu", "--min-free-gib", 0,
        "--executor", "ray", "--num-replicas", 1,
    )  # fmt: skip
    job = server.submit({"prompt": "a red circle", "size": "144x80", "num_frames": 5, "num_inference_steps": 2})
    server.wait_until("the job has ended", lambda: server.state(job) in ("completed", "failed"))
    status = server.state(job)
    processes = psutil.Process(server.process.pid).children(recursive=True)
    server.stop()
    return status, psutil.wait_procs(processes, 30)[1]


@pytest.mark.timeout(600)
def test_a_server_makes_its_videos_in_ray(server: tuple[str, list[psutil.Process]]) -> None:
    assert server[0] == "completed"


def test_a_servers_own_ray_ends_with_it(server: tuple[str, list[psutil.Process]]) -> None:
    assert server[1] == []
