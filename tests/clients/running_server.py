"""``hunyuan-local serve`` as a process of its own, and what the tests do to it from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
from client_requests import PROMPT

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.roster import Roster

KEY = "a-key-of-the-tests"
PATIENCE_S = 240
_PROGRAM = Path(sys.executable).with_name("hunyuan-local")
_LISTENING = re.compile(r"^hunyuan-local is listening on (http://127\.0\.0\.1:\d+)$", re.MULTILINE)

T = TypeVar("T")


class RunningServer:
    """One server with one worker on the CPU, or none; a job is tried once, so that it fails if its worker is killed."""

    def __init__(self, folder: Path, *, workers: int = 1, **more: object):
        self.key = KEY
        self.data_dir = folder / "data"
        self._log = folder / "serve.log"
        keys = folder / "keys"
        keys.write_text(f"# clients of the tests\n{KEY}\n")
        options = {
            "--model": "tiny", "--profile": "cpu", "--port": 0, "--data-dir": self.data_dir, "--workers": workers,
            "--api-keys-file": keys, "--max-attempts": 1, "--min-free-gib": 0,
        } | {f"--{name.replace('_', '-')}": value for name, value in more.items()}  # fmt: skip
        threads = os.environ.get("OMP_NUM_THREADS") or str(min(4, len(os.sched_getaffinity(0))))
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [_PROGRAM, "serve", *(str(part) for option in options.items() for part in option)],
                env=local_environment() | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.url = self._until("it listens", lambda: _LISTENING.search(self.log))[1]
            self.http = httpx.Client(
                base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=60
            )
            if workers:
                self._until("a worker is ready", self._is_ready)
        except BaseException:
            self.process.kill()
            raise
        self.store = DataFolder(self.data_dir).store()

    @property
    def log(self) -> str:
        """What the server and its worker have said."""
        return self._log.read_text()

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end on SIGTERM:\n{self.log}") from None

    def submit_job(self, **fields: int) -> str:
        """A job of the size that the services have, with other settings as given; its id."""
        body = {"prompt": PROMPT, "size": "1280x720"} | fields
        return self.http.post("/v1/videos", json=body).raise_for_status().json()["id"]

    def submit_long_job(self) -> str:
        """A job that works for minutes if nobody stops it; its id."""
        return self.submit_job(num_frames=129, num_inference_steps=100)

    def wait_for(self, job_id: str, *statuses: str) -> Job:
        """The job, once its status is one of these."""

        def reached() -> Job | None:
            job = self.store.get(job_id)
            return job if job is not None and job.status in statuses else None

        return self._until(f"job {job_id} is {' or '.join(statuses)}", reached)

    def wait_for_seed(self, seed: int, *statuses: str) -> Job:
        """The job that was submitted with this seed, once its status is one of these."""

        def reached() -> Job | None:
            jobs = self.store.list(statuses=statuses)
            return next((job for job in jobs if job.request.seed == seed), None)

        return self._until(f"a job with the seed {seed} is {' or '.join(statuses)}", reached)

    def count_with_seed(self, seed: int) -> int:
        """How many jobs were submitted with this seed."""
        return sum(job.request.seed == seed for job in self.store.list(limit=1000))

    def kill_worker_of(self, job_id: str) -> None:
        """SIGKILL the process that works on this job."""
        self.wait_for(job_id, "running")

        def find() -> int | None:
            reports = Roster(self.store.database).list()
            return next((report.pid for report in reports if report.note == job_id), None)

        os.kill(self._until(f"a worker reports job {job_id}", find), signal.SIGKILL)

    def run_cli(self, *arguments: str) -> str:
        """``hunyuan-local jobs ...`` on this server's folder; its stdout."""
        command = [_PROGRAM, "jobs", *arguments, "--data-dir", str(self.data_dir)]
        result = subprocess.run(command, env=local_environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:  # if it has ended, that is seen next, with what it said
            return False

    def _until(self, what: str, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := look()):
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s until {what}:\n{self.log}"
            time.sleep(0.05)
        return found


def local_environment() -> dict[str, str]:
    """This process's variables without those that would lead a client or the server elsewhere."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HUNYUAN_LOCAL_")}
    return ours | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
