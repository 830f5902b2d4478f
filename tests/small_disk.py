"""Runs in a separate file system, of a few megabytes or read-only, and prints what happened as JSON.

``python small_disk.py FOLDER SCENARIO``, inside ``unshare --map-root-user --mount``: the disk is
really full there, and really read-only, for root as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.config import load_model_config
from hunyuan_local.errors import StoreError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.schema import GenerationRequest, Progress
from hunyuan_local.server.app import create_app
from hunyuan_local.server.config import ServerConfig

if TYPE_CHECKING:
    from hunyuan_local.backends.local.backend import LocalBackend
    from hunyuan_local.backends.local.decode_and_write import PendingVideo

REQUEST = {"prompt": "a red circle moving right on a black background", "width": 144, "height": 80,
           "num_frames": 5, "num_inference_steps": 3, "seed": 7}  # fmt: skip


def fill(root: Path) -> Path:
    """Write until the disk is full."""
    ballast = root / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def submit(root: Path) -> dict[str, Any]:
    """A submission to a full disk in each dialect, and one after there is space again."""
    folder = DataFolder(root)
    store = folder.store()
    app = create_app(ServerConfig(model=load_model_config("tiny"), insecure=True, min_free_bytes=0), folder, store)
    client = TestClient(app, raise_server_exceptions=False)
    ballast = fill(root)
    novita = {"model_name": "hunyuan-video-fast", "width": 1280, "height": 720, "seed": 1, "steps": 2, "prompt": "a"}
    answers = [
        client.post("/v1/videos", json=REQUEST),
        client.post("/api/v3/wavespeed-ai/hunyuan-video/t2v", json={"prompt": "a"}),
        client.post("/v3/async/hunyuan-video-fast", json=novita),
    ]
    ballast.unlink()
    after = client.post("/v1/videos", json=REQUEST)
    return {
        "codes": [answer.status_code for answer in answers],
        "bodies": [answer.json() for answer in answers],
        "after": after.status_code,
        "jobs": len(store.find()),
    }


class FillsTheDisk:
    """The local backend, which fills the disk before the first latents are decoded."""

    def __init__(self, backend: LocalBackend, root: Path):
        self._backend, self._root = backend, root

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def meddle(self) -> None:
        fill(self._root)

    def start(self, request: GenerationRequest, context: GenerationContext) -> PendingVideo:
        reported = context.on_progress

        def watch(progress: Progress) -> None:
            reported(progress)
            if progress.stage == "decode" and progress.step == 0:
                self.meddle()

        context.on_progress = watch
        return self._backend.start(request, context)


def write(root: Path) -> dict[str, Any]:
    """A disk that fills up during a video, the worker that exits then, and the next worker on a disk with space."""
    from hunyuan_local.backends.local.backend import LocalBackend
    from hunyuan_local.jobs.worker import Worker
    from hunyuan_local.jobs.worker_config import WorkerConfig
    from hunyuan_local.provenance import read_provenance

    folder = DataFolder(root)
    store = folder.store()
    backend = LocalBackend("tiny", "cpu")
    job = store.enqueue(GenerationRequest(**REQUEST), backend.config.identity)
    worker = Worker(folder, store, FillsTheDisk(backend, root), WorkerConfig(name="first", pause_s=0.1))
    stopped = ""
    try:
        worker.run()
    except StoreError as error:
        stopped = str(error)
    (root / "ballast").unlink()
    store.expire("first")
    second = Worker(folder, store, EndsAfterOne(backend, lambda: second.stop()), WorkerConfig(name="second"))
    second.run()
    done = store.get(job.job_id)
    with_space = backend.generate(job.request, GenerationContext(root / "whole.mp4"))
    same = read_provenance(folder.video(done)).frames_sha256 == with_space.provenance["frames_sha256"]
    return {"stopped": stopped, "status": done.status, "same": same, "denoise_s": done.result["timings"]["denoise_s"]}


class EndsAfterOne:
    """The local backend, whose worker exits after one job."""

    def __init__(self, backend: LocalBackend, end: Callable[[], None]):
        self._backend, self._end = backend, end

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def start(self, request: GenerationRequest, context: GenerationContext) -> PendingVideo:
        pending = self._backend.start(request, context)
        self._end()
        return pending


def mount_read_only(file: Path) -> None:
    """Make a file read-only for whoever opens it from now on, also for root."""
    subprocess.run(["mount", "--bind", str(file), str(file)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(file)], check=True)


def protect(root: Path) -> dict[str, Any]:
    """Submissions while the job store is read-only, and afterwards from the same thread."""
    folder = DataFolder(root)
    store = folder.store()
    app = create_app(ServerConfig(model=load_model_config("tiny"), insecure=True, min_free_bytes=0), folder, store)
    client = TestClient(app, raise_server_exceptions=False)
    before = client.post("/v1/videos", json=REQUEST).json()["id"]
    mount_read_only(root / "jobs.sqlite3")
    refused = client.post("/v1/videos", json=REQUEST)
    read = client.get(f"/v1/videos/{before}")
    with ThreadPoolExecutor(1) as thread:  # whose connection is opened while the file is read-only
        error = thread.submit(store.enqueue, GenerationRequest(**REQUEST), "m").exception()
        subprocess.run(["umount", "--lazy", str(root / "jobs.sqlite3")], check=True)
        thread.submit(store.enqueue, GenerationRequest(**REQUEST), "m").result()
        thread.submit(store.close).result()
    after = client.post("/v1/videos", json=REQUEST)
    codes = {"refused": refused.status_code, "read": read.status_code, "after": after.status_code}
    return codes | {"error": str(error), "jobs": len(store.find())}


class ProtectsTheStore(FillsTheDisk):
    """The local backend, which makes the job store read-only before the first latents are decoded."""

    def meddle(self) -> None:
        mount_read_only(self._root / "jobs.sqlite3")


def finish(root: Path) -> dict[str, Any]:
    """A job store that becomes read-only during a video, and the next worker when it is writable again."""
    from hunyuan_local.backends.local.backend import LocalBackend
    from hunyuan_local.jobs.worker import Worker
    from hunyuan_local.jobs.worker_config import WorkerConfig

    folder = DataFolder(root)
    store = folder.store()
    backend = LocalBackend("tiny", "cpu")
    filled = backend.config.fill(GenerationRequest(**REQUEST))  # as the server stores it
    job = store.enqueue(filled, backend.config.identity)
    stopped = ""
    try:
        Worker(folder, store, ProtectsTheStore(backend, root), WorkerConfig(name="first", pause_s=0.1)).run()
    except StoreError as error:
        stopped = str(error)
    kept = folder.video(job).read_bytes()
    subprocess.run(["umount", "--lazy", str(root / "jobs.sqlite3")], check=True)
    store.expire("first")
    second = Worker(folder, store, backend, WorkerConfig(name="second"))

    def end_after_it() -> None:
        while not store.get(job.job_id).is_finished:
            time.sleep(0.05)
        second.stop()

    threading.Thread(target=end_after_it, daemon=True).start()
    second.run()
    done = store.get(job.job_id)
    return {"stopped": stopped, "status": done.status, "same": folder.video(done).read_bytes() == kept}


def read_only(root: Path) -> dict[str, Any]:
    """``serve`` on a folder that cannot be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    command = [sys.executable, "-m", "hunyuan_local", "serve", "--no-page", "--model", "tiny", "--data-dir", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    return {"code": done.returncode, "said": done.stderr}


if __name__ == "__main__":
    scenarios = {"submit": submit, "write": write, "protect": protect, "finish": finish, "read_only": read_only}
    print(json.dumps(scenarios[sys.argv[2]](Path(sys.argv[1]))))
