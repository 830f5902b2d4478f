"""Kills a server and its workers with SIGKILL at random moments, and checks all jobs.

It keeps submitting small jobs, also to a dying server. At the end, every job whose id the server returned must be done
exactly once, with the frames of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from server_process import ServerProcess

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker_reports import WorkerReports
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest

OPTIONS = (
    "--model", "tiny", "--profile", "cpu", "--min-free-gib", 0, "--max-attempts", 1000, "--max-queue", 10000,
    "--lease", 5, "--checkpoint-every", 2,
)  # fmt: skip
PROMPT = "a red circle moving right on a black background"


@dataclass(frozen=True)
class Outcome:
    """Counts of a run."""

    kills_of_servers: int
    kills_of_workers: int
    jobs_told: int  # whose id reached the client
    jobs_lost: int  # of these, those not done at the end
    jobs_untold: int  # in the store, but the response was lost with the server; also done
    jobs_done: int
    done_twice: int
    frames_differ: int
    taken_up_in_mid_video: int
    attempts: int
    seconds: float

    @property
    def is_right(self) -> bool:
        """Whether no job was lost or done twice, and all frames are equal."""
        return not (self.jobs_lost or self.done_twice or self.frames_differ)


def run(
    folder: Path, kills: int, jobs: int, seed: int, *, steps: tuple[int, int] = (20, 100), pause_s: float = 4
) -> Outcome:
    """Submit ``jobs`` while ``kills`` processes are killed, half of them servers, then wait for the end.

    Args:
        steps: minimum and maximum number of steps per job.
        pause_s: maximum time before a kill.
    """
    began, chance = time.monotonic(), random.Random(seed)
    log, data = folder / "serve.log", folder / "data"
    requests = [
        {"prompt": PROMPT, "size": "144x80", "num_frames": 5, "num_inference_steps": chance.randint(*steps), "seed": n}
        for n in range(jobs)
    ]
    accepted: list[str] = []
    killed: Counter[str] = Counter()
    server = ServerProcess(data, log, *OPTIONS)
    store = DataFolder(data).store()
    for number in range(kills):
        share = requests[number * jobs // kills : (number + 1) * jobs // kills]
        late = chance.randint(0, len(share))  # submitted around the moment of the kill
        _submit(server, share[:late], accepted)
        server.wait_until_ready()
        time.sleep(chance.uniform(0, pause_s))
        victim = "worker" if number % 2 == 0 and _kill_a_worker(store, chance) else "server"
        if victim == "server":
            server.kill()
        killed[victim] += 1
        _submit(server, share[late:], accepted)
        if victim == "server":
            server = ServerProcess(data, log, *OPTIONS)
            _submit(server, share[late:][:1], accepted)
    server.wait_until("every job is done", lambda: not store.find(statuses=["queued", "running"], limit=1))
    server.stop()
    return _count(store, DataFolder(data), accepted, killed, log.read_text(), time.monotonic() - began)


def _kill_a_worker(store: JobStore, chance: random.Random) -> bool:
    """Kill a worker; False if none is alive, because an earlier kill may have left only its report."""
    pids = [report.pid for report in WorkerReports(store.database).recent() if psutil.pid_exists(report.pid)]
    if pids:
        os.kill(chance.choice(pids), signal.SIGKILL)
    return bool(pids)


def _submit(server: ServerProcess, requests: list[dict], accepted: list[str]) -> None:
    """Submit each job once, without retrying after a failure."""
    for fields in requests:
        try:
            accepted.append(server.submit(fields))
        except (httpx.TransportError, RuntimeError):  # RuntimeError: its connections are closed
            continue


def _count(
    store: JobStore, folder: DataFolder, accepted: list[str], killed: Counter[str], log: str, seconds: float
) -> Outcome:
    jobs = store.find(limit=1_000_000)
    done = [job for job in jobs if job.status == "succeeded"]
    ids = {job.job_id for job in done}
    undisturbed = _undisturbed({job.request for job in done})
    hashes = {job.job_id: read_provenance(folder.video(job)).frames_sha256 for job in done}
    return Outcome(
        kills_of_servers=killed["server"],
        kills_of_workers=killed["worker"],
        jobs_told=len(accepted),
        jobs_lost=sum(job_id not in ids for job_id in accepted),
        jobs_untold=len({job.job_id for job in jobs} - set(accepted)),
        jobs_done=len(done),
        done_twice=sum(log.count(f"job {job_id}: done") > 1 for job_id in ids),
        frames_differ=sum(hashes[job.job_id] != undisturbed[job.request] for job in done),
        taken_up_in_mid_video=sum(any("resuming after" in note for note in job.result["notes"]) for job in done),
        attempts=sum(job.attempts for job in done),
        seconds=round(seconds, 1),
    )


def _undisturbed(requests: set[GenerationRequest]) -> dict[GenerationRequest, str]:
    """The hash of the frames of each request, generated in this process without a server."""
    backend = LocalBackend("tiny", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        context = GenerationContext(Path(folder) / "video.mp4", overwrite=True)
        return {request: backend.generate(request, context).provenance["frames_sha256"] for request in requests}


def main() -> None:
    """Run, print the counts, and exit with 1 if one of them is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file with the counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), arguments.kills, arguments.jobs, arguments.seed)
    if arguments.output:
        arguments.output.write_text(json.dumps(asdict(outcome), indent=1) + "\n")
    for name, value in asdict(outcome).items():
        print(f"{name.replace('_', ' '):<24}{value}")
    sys.exit(0 if outcome.is_right else 1)


if __name__ == "__main__":
    main()
