"""Measures the server: its latency while a video is generated, and its overhead per job.

The first part sends GETs of a job's state at a constant rate from another process while the job computes on all cores.
The second part runs the same job in pairs, through the server and in a process with the model loaded. It measures
what a user waits for: from the submission to the last byte of the download, and from the call to the finished file.
The order alternates, both processes have the same number of threads and niceness, and the frames must be equal. The
result is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import torch
from server_process import ServerProcess, own_environment

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest

OPTIONS = ("--model", "tiny", "--profile", "cpu", "--min-free-gib", 0)
PROMPT = "a red circle moving right on a black background"
# Long enough for the first part: minutes on a few cores.
LONG = {"prompt": PROMPT, "size": "1280x720", "num_frames": 129, "num_inference_steps": 100, "seed": 1}
# Steps, frames, and polling interval; None is the interval that the server advises, which OpenAI's client uses.
JOBS = ((30, 17, None), (30, 17, 0.02), (100, 33, None))
_NICENESS = 10  # as the server's pool for its workers
_REST_S = 0.5  # lets threads that spin after a run stop before the next run


@dataclass(frozen=True)
class Latency:
    """Seconds from the time when a GET was due to its last byte, so that a late start counts."""

    rate_per_s: float
    requests: int
    failed: int
    p50_s: float
    p99_s: float
    worst_s: float


@dataclass(frozen=True)
class Overhead:
    """One job both ways; median seconds over ``pairs``, and the ratios of the pairs in order.

    ``looks`` is the number of polls of the client, and ``poll_s`` its polling interval; None is the advised one.
    """

    steps: int
    frames: int
    poll_s: float | None
    pairs: int
    server_s: float
    in_process_s: float
    looks: float
    ratio: float
    ratios: list[float]


async def get_at_rate(url: str, rate_per_s: float, seconds: float) -> Latency:
    """GET ``url`` at a constant rate, without waiting for earlier responses."""
    count, failed, taken = round(rate_per_s * seconds), 0, []
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits) as http:
        began = time.perf_counter()

        async def get(due: float) -> None:
            nonlocal failed
            try:
                answer = await http.get(url)
                failed += answer.status_code != 200
            except httpx.HTTPError:
                failed += 1
            taken.append(time.perf_counter() - due)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                due = began + number / rate_per_s
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(get(due))
    p50, p99 = np.percentile(taken, [50, 99])
    return Latency(rate_per_s, count, failed, float(p50), float(p99), max(taken))


def measure_latency(server: ServerProcess, rate_per_s: float, seconds: float) -> Latency:
    """Run the first part, and cancel the job at the end."""
    job_id = server.submit(LONG)
    server.wait_until("the job runs", lambda: server.state(job_id) == "in_progress")
    time.sleep(1)
    latency = asyncio.run(get_at_rate(f"{server.url}/v1/videos/{job_id}", rate_per_s, seconds))
    if server.state(job_id) != "in_progress":
        raise RuntimeError("the job ended before the measurement; make it longer")
    server.http.delete(f"/v1/videos/{job_id}").raise_for_status()
    server.wait_until("the job has stopped", lambda: server.state(job_id) == "failed")
    return latency


class InProcess:
    """A process that keeps the model loaded and generates videos on request."""

    def __init__(self, output: Path):
        context = multiprocessing.get_context("spawn")
        self.output = output
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_make_videos, args=(theirs, output), daemon=True)
        self._process.start()

    def make(self, fields: dict) -> float:
        """Seconds from the call to the finished file, ``output``."""
        self._pipe.send(fields)
        return self._pipe.recv()

    def stop(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join()


def _make_videos(pipe: Connection, output: Path) -> None:
    """Main function of that process."""
    os.nice(_NICENESS)
    backend = LocalBackend("tiny", "cpu")
    while (fields := pipe.recv()) is not None:
        request = GenerationRequest(**fields)
        began = time.perf_counter()
        backend.generate(request, GenerationContext(output, overwrite=True))
        pipe.send(time.perf_counter() - began)


class Client:
    """A client that uses as little CPU as possible, because the model needs it; one connection per job."""

    def __init__(self, url: str):
        self._host = urlsplit(url).netloc

    def make(self, fields: dict, poll_s: float | None, output: Path) -> tuple[float, int]:
        """Seconds from the submission to the last byte of the download, and number of polls."""
        began, looks = time.perf_counter(), 0
        self._connection = HTTPConnection(self._host, timeout=600)
        body = {name: value for name, value in fields.items() if name not in ("width", "height")}
        said, advised_s = self._video("POST", "/v1/videos", body | {"size": f"{fields['width']}x{fields['height']}"})
        path = f"/v1/videos/{said['id']}"
        while said["status"] not in ("completed", "failed"):
            time.sleep(advised_s if poll_s is None else poll_s)
            said, advised_s = self._video("GET", path)
            looks += 1
        content = self._call("GET", f"{path}/content")[0]
        seconds = time.perf_counter() - began
        self._connection.close()
        output.write_bytes(content)
        return seconds, looks

    def _video(self, method: str, path: str, fields: dict | None = None) -> tuple[dict, float]:
        content, headers = self._call(method, path, fields)
        return json.loads(content), int(headers["openai-poll-after-ms"]) / 1000

    def _call(self, method: str, path: str, fields: dict | None = None) -> tuple[bytes, dict]:
        body = None if fields is None else json.dumps(fields)
        self._connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content, {name.lower(): value for name, value in answer.getheaders()}


def measure_overhead(
    client: Client, local: InProcess, pairs: int, job: tuple[int, int, float | None], folder: Path
) -> Overhead:
    """Run the second part for one job; the first pair is a warm-up."""
    steps, frames, poll_s = job
    served, made, looks, output = [], [], [], folder / "served.mp4"
    for seed in range(pairs + 1):
        fields = {
            "prompt": PROMPT, "width": 1280, "height": 720, "num_frames": frames, "num_inference_steps": steps,
            "seed": seed,
        }  # fmt: skip
        for is_served in (True, False) if seed % 2 else (False, True):
            time.sleep(_REST_S)
            if is_served:
                seconds, asked = client.make(fields, poll_s, output)
                served.append(seconds)
                looks.append(asked)
            else:
                made.append(local.make(fields))
        if read_provenance(output).frames_sha256 != read_provenance(local.output).frames_sha256:
            raise RuntimeError(f"seed {seed}: the frames differ between the server and the process")
    ratios = [through / alone for through, alone in zip(served[1:], made[1:], strict=True)]
    medians = [statistics.median(values) for values in (served[1:], made[1:], looks[1:], ratios)]
    return Overhead(steps, frames, poll_s, pairs, *medians, ratios)


def main() -> None:
    """Run both parts, and print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="GETs per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=len(JOBS), help="number of jobs in the second part")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    os.environ.update(own_environment())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ServerProcess(folder / "data", folder / "serve.log", *OPTIONS)
        server.wait_until_ready()
        latency = measure_latency(server, arguments.rate, arguments.seconds)
        client, local = Client(server.url), InProcess(folder / "local.mp4")
        overheads = [measure_overhead(client, local, arguments.pairs, job, folder) for job in JOBS[: arguments.jobs]]
        local.stop()
        server.stop()
    threads = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0))
    machine = {"cores": cores, "threads": threads, "cpu": platform.machine(), "torch": torch.__version__}
    found = {"machine": machine, "latency": asdict(latency), "overhead": [asdict(each) for each in overheads]}
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"GET while a video is generated, {latency.rate_per_s:g} per second, {latency.requests} in total:")
    print(f"  p50 {1000 * latency.p50_s:.1f} ms, p99 {1000 * latency.p99_s:.1f} ms, worst "
          f"{1000 * latency.worst_s:.1f} ms, failed {latency.failed}")  # fmt: skip
    for each in overheads:
        poll = "as advised" if each.poll_s is None else f"every {1000 * each.poll_s:.0f} ms"
        low, high = min(each.ratios), max(each.ratios)
        print(f"a job of {each.steps} steps and {each.frames} frames, polled {poll} ({each.looks:g} times):")
        print(f"  through the server {each.server_s:.2f} s, in process {each.in_process_s:.2f} s; ratio "
              f"{each.ratio:.3f}, median of {each.pairs} pairs from {low:.3f} to {high:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
