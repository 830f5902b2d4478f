"""``hunyuan-local ui`` in a separate process, on a port that it keeps after a restart."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job

KEY = "a-key-of-the-tests"
_PATIENCE_S = 240.0

T = TypeVar("T")


class PageServer:
    """One server with one worker on the CPU; a restart keeps jobs and log.

    Args:
        folder: folder for its jobs and its log.
        more: options of the command.
        port: None chooses a free one.
    """

    def __init__(self, folder: Path, *more: str, port: int | None = None):
        self._log = folder / "server.log"
        self._data_dir = folder / "data"
        keys = folder / "keys"
        keys.write_text(f"{KEY}\n")
        self._port = port or _free_port()
        self._command = [
            sys.executable, "-m", "hunyuan_local", "ui", "--no-browser", "--model", "tiny", "--profile", "cpu",
            "--workers", "1", "--min-free-gib", "0", "--checkpoint-every", "1", "--lease", "5",
            "--data-dir", str(self._data_dir), "--port", str(self._port), "--api-keys-file", str(keys), *more,
        ]  # fmt: skip
        self.url = f"http://127.0.0.1:{self._port}"
        self.page_url = f"{self.url}/ui/"
        self._folder = DataFolder(self._data_dir)
        self.store = self._folder.store()

    def start(self, *, wait_for_worker: bool = True) -> None:
        """Start the server, and wait until its worker has loaded the model."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("HUNYUAN_LOCAL_")}
        cache = {name: value for name, value in os.environ.items() if name == "HUNYUAN_LOCAL_CACHE_DIR"}
        fixed = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with self._log.open("a") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=ours | cache | fixed
            )
        self.wait_until("the server answers", lambda: self._answers("/readyz" if wait_for_worker else "/healthz"))

    def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Send SIGTERM; the server must exit by itself, without an error in its log."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(30)
        finally:
            self._process.kill()
        assert code == 0, self.said
        assert "Traceback" not in self.said, self.said

    @property
    def said(self) -> str:
        """The log of the server and its workers."""
        return self._log.read_text(errors="replace")

    def video_of(self, job: Job) -> Path:
        """The file of a finished job."""
        return self._folder.video(job)

    def newest(self) -> Job:
        """The most recently submitted job."""
        return self.store.find(limit=1)[0]

    def wait_for(self, job_id: str, *statuses: str) -> Job:
        """Wait until the job has one of these statuses; returns it."""

        def reached() -> Job | None:
            job = self.store.get(job_id)
            return job if job is not None and job.status in statuses else None

        return self.wait_until(f"job {job_id} is {' or '.join(statuses)}", reached)

    def wait_until(self, what: str, look: Callable[[], T | None]) -> T:
        """Poll ``look`` until it returns something; returns that."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            assert time.monotonic() < deadline and self._process.poll() is None, f"timed out: {what}\n{self.said}"
            time.sleep(0.1)
        return found

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]
