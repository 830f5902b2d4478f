"""``hunyuan-local serve`` in a separate process, controlled by the tests from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from client_requests import PROMPT

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.job import Job
from hunyuan_local.jobs.worker_reports import WorkerReports

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from server_process import ServerProcess, own_environment

_PROGRAM = Path(sys.executable).with_name("hunyuan-local")
KEY = "a-key-of-the-tests"


class RunningServer(ServerProcess):
    """One server with one worker on the CPU, or none; a job is tried once, so that it fails if its worker is killed."""

    patience_s = 240.0

    def __init__(self, folder: Path, *, workers: int = 1, relaxed: bool = False, **more: object):
        self.key = KEY
        self.data_dir = folder / "data"
        keys = folder / "keys"
        keys.write_text(f"# clients of the tests\n{KEY}\n")
        options = {
            "--model": "tiny", "--profile": "cpu", "--workers": workers, "--api-keys-file": keys, "--max-attempts": 1,
            "--min-free-gib": 0,
        } | {f"--{name.replace('_', '-')}": value for name, value in more.items()}  # fmt: skip
        threads = os.environ.get("OMP_NUM_THREADS") or str(min(4, len(os.sched_getaffinity(0))))
        super().__init__(
            self.data_dir,
            folder / "serve.log",
            *(part for option in options.items() for part in option),
            *(["--relaxed"] if relaxed else []),
            key=KEY,
            environment={"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
        )
        if workers:
            self.wait_until_ready()
        self.store = DataFolder(self.data_dir).store()

    def stop(self) -> int:
        """Send SIGTERM; returns the exit code."""
        try:
            return super().stop(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end on SIGTERM:\n{self.said}") from None

    def submit_job(self, **fields: object) -> str:
        """Submit a job of the services' size with these settings; returns its id."""
        return self.submit({"prompt": PROMPT, "size": "1280x720"} | fields)

    def submit_long_job(self) -> str:
        """Submit a job that would run for minutes; returns its id."""
        return self.submit_job(num_frames=129, num_inference_steps=100)

    def wait_for(self, job_id: str, *statuses: str) -> Job:
        """Wait until the job has one of these statuses; returns it."""

        def reached() -> Job | None:
            job = self.store.get(job_id)
            return job if job is not None and job.status in statuses else None

        return self.wait_until(f"job {job_id} is {' or '.join(statuses)}", reached)

    def wait_for_seed(self, seed: int, *statuses: str) -> Job:
        """Wait until the job with this seed has one of these statuses; returns it."""

        def reached() -> Job | None:
            jobs = self.store.find(statuses=statuses)
            return next((job for job in jobs if job.request.seed == seed), None)

        return self.wait_until(f"a job with the seed {seed} is {' or '.join(statuses)}", reached)

    def count_with_seed(self, seed: int) -> int:
        """Number of jobs with this seed."""
        return sum(job.request.seed == seed for job in self.store.find(limit=1000))

    def kill_worker_of(self, job_id: str) -> None:
        """Send SIGKILL to the process that runs this job."""
        self.wait_for(job_id, "running")

        def find() -> int | None:
            reports = WorkerReports(self.store.database).recent()
            return next((report.pid for report in reports if report.note == job_id), None)

        os.kill(self.wait_until(f"a worker reports job {job_id}", find), signal.SIGKILL)

    def run_cli(self, *arguments: str) -> str:
        """``hunyuan-local jobs ...`` on this server's folder; its stdout."""
        command = [_PROGRAM, "jobs", *arguments, "--data-dir", str(self.data_dir)]
        result = subprocess.run(command, env=own_environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout
