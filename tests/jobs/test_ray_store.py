"""The store and folder of a worker on another machine, and the owner's side, without a cluster."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.ray_workers.remote_store import RemoteFolder, RemoteStore
from hunyuan_local.jobs.ray_workers.store_actor import StoreActor
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.schema import GenerationRequest

MODEL = "a model"
STATE = {"latents-1.safetensors": b"after step 5"}


@pytest.fixture
def keeper(folder: DataFolder) -> StoreActor:
    return StoreActor(folder.root)


@pytest.fixture(autouse=True)
def waiting(store: JobStore, small_request: GenerationRequest) -> Job:
    """The only job."""
    return store.enqueue(small_request, MODEL)


def claim(keeper: StoreActor, worker: str) -> Job:
    return keeper.claim(worker, MODEL, 60)[0]


def test_a_saved_state_comes_with_the_job(keeper: StoreActor, store: JobStore) -> None:
    keeper.save(job := claim(keeper, "a"), STATE)
    store.give_back(job)
    assert keeper.claim("b", MODEL, 60)[1] == STATE


def test_no_state_is_taken_from_whoever_lost_the_job(keeper: StoreActor, store: JobStore, folder: DataFolder) -> None:
    late = claim(keeper, "a")
    store.expire("a")
    job = claim(keeper, "b")
    assert (keeper.save(late, STATE), folder.unfinished(job).exists()) == (False, False)


def test_no_video_is_taken_from_whoever_lost_the_job(keeper: StoreActor, store: JobStore, folder: DataFolder) -> None:
    late = claim(keeper, "a")
    store.expire("a")
    job = claim(keeper, "b")
    assert (keeper.succeed(late, {}, []), folder.video(job).exists()) == (False, False)


def test_a_file_cannot_leave_its_jobs_folder(keeper: StoreActor, folder: DataFolder) -> None:
    keeper.save(job := claim(keeper, "a"), {"../../outside.safetensors": b"x"})
    assert [path.name for path in folder.unfinished(job).iterdir()] == ["outside.safetensors"]


class Here:
    """Calls a store actor in this process, which answers immediately."""

    def __init__(self, keeper: StoreActor):
        self._keeper = keeper
        self.sent: list[str] = []

    def send(self, method: str, *values: Any) -> Any:
        self.sent.append(method)
        return getattr(self._keeper, method)(*values)

    def has_answered(self, reference: Any, patience_s: float = 0) -> bool:
        return True

    def answer(self, reference: Any) -> Any:
        return reference

    def call(self, method: str, *values: Any, patience_s: float = 0, **named: Any) -> Any:
        return getattr(self._keeper, method)(*values, **named)


@pytest.fixture
def here(keeper: StoreActor) -> Here:
    return Here(keeper)


@pytest.fixture
def remote_folder(here: Here, tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(tmp_path / "replica", here)


@pytest.fixture
def remote(here: Here, remote_folder: RemoteFolder) -> RemoteStore:
    return RemoteStore(here, remote_folder)


def save_here(folder: RemoteFolder, job: Job) -> None:
    folder.place(job, STATE)


def test_a_state_is_sent_once(here: Here, remote: RemoteStore, remote_folder: RemoteFolder) -> None:
    job = remote.claim("a", MODEL, 60)
    save_here(remote_folder, job)
    remote.beat(job, 60)
    remote.beat(job, 60)
    assert here.sent == ["save"]


def test_the_newest_state_is_with_the_owner_before_the_job_is_given_back(
    folder: DataFolder, remote: RemoteStore, remote_folder: RemoteFolder
) -> None:
    job = remote.claim("a", MODEL, 60)
    save_here(remote_folder, job)
    remote.give_back(job)
    assert [path.read_bytes() for path in folder.unfinished(job).iterdir()] == list(STATE.values())


def test_a_state_that_came_with_the_job_is_not_sent_back(
    here: Here, keeper: StoreActor, store: JobStore, remote: RemoteStore
) -> None:
    keeper.save(job := claim(keeper, "a"), STATE)
    store.give_back(job)
    remote.beat(remote.claim("b", MODEL, 60), 60)
    assert here.sent == []


def test_a_state_is_not_sent_for_a_job_that_is_cancelled(
    here: Here, store: JobStore, remote: RemoteStore, remote_folder: RemoteFolder
) -> None:
    job = remote.claim("a", MODEL, 60)
    save_here(remote_folder, job)
    store.cancel(job.job_id)
    assert (remote.beat(job, 60), here.sent) == (False, [])


def test_files_of_a_job_that_is_over_are_deleted_here(remote: RemoteStore, remote_folder: RemoteFolder) -> None:
    job = remote.claim("a", MODEL, 60)
    save_here(remote_folder, job)
    remote.fail(job, "it cannot be made")
    assert not remote_folder.unfinished(job).exists()


def test_an_image_comes_from_the_owner_over_the_wire(
    folder: DataFolder, keeper: StoreActor, here: Here, remote_folder: RemoteFolder, small_request: GenerationRequest
) -> None:
    request = small_request.replace(image=Image.new("RGB", (32, 32), "red"))
    folder.keep_image(request)
    stored = GenerationRequest.model_validate_json(request.model_dump_json())
    found = pickle.loads(pickle.dumps(keeper.with_image(pickle.loads(pickle.dumps(stored)))))
    assert not stored.image.is_here
    assert found.image.content() == remote_folder.with_image(stored).image.content() == request.image.content()


def test_a_wait_ends_as_soon_as_the_worker_is_to_end(remote: RemoteStore) -> None:
    asked = iter([False, True])
    remote.wait_for_change(lambda: next(asked), 1e6)
    assert next(asked, "no more") == "no more"


def test_what_a_replica_logs_is_kept_where_it_was_asked_for(folder: DataFolder, tmp_path: Path) -> None:
    keeper = StoreActor(folder.root, tmp_path / "logs")
    keeper.log("replica0", "one")
    keeper.log("replica0", "two")
    assert (tmp_path / "logs" / "replica0.log").read_text() == "one\ntwo\n"
