"""Measures the server beside the model: how soon it answers while a video is made, and what it adds to a job.

Two parts. First GETs of a job's state at a steady rate, from another process, while that job is
computed on all cores. Then the same request by turns through the server, from the submission to the
last byte of the file, and in this process with the model loaded: the ratio of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import torch
from server_process import ServerProcess

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local import LocalBackend
from hunyuan_local.schema import GenerationRequest

OPTIONS = ("--model", "tiny", "--profile", "cpu", "--min-free-gib", 0)
PROMPT = "a red circle moving right on a black background"
# Long enough for the first part: minutes on a few cores.
LONG = {"prompt": PROMPT, "size": "1280x720", "num_frames": 129, "num_inference_steps": 100, "seed": 1}
POLL_S = 0.02


@dataclass(frozen=True)
class Latency:
    """Seconds from the moment in which a GET was due to its last byte: a late start counts too."""

    rate_per_s: float
    requests: int
    failed: int
    p50_s: float
    p99_s: float
    worst_s: float


@dataclass(frozen=True)
class Overhead:
    """The same job through the server and in this process; medians in seconds over ``pairs``."""

    pairs: int
    server_s: float
    in_process_s: float
    ratio: float


async def get_at_rate(url: str, rate_per_s: float, seconds: float) -> Latency:
    """GET ``url`` at a steady rate, whether or not earlier answers have come."""
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
    """The first part; the job is cancelled at the end."""
    job_id = server.submit(LONG)
    server.wait_until("the job runs", lambda: server.state(job_id) == "in_progress")
    time.sleep(1)
    latency = asyncio.run(get_at_rate(f"{server.url}/v1/videos/{job_id}", rate_per_s, seconds))
    if server.state(job_id) != "in_progress":
        raise RuntimeError("the job ended before the measurement; make it longer")
    server.http.delete(f"/v1/videos/{job_id}").raise_for_status()
    server.wait_until("the job has stopped", lambda: server.state(job_id) == "failed")
    return latency


def measure_overhead(server: ServerProcess, pairs: int, steps: int, folder: Path) -> Overhead:
    """The second part, by turns; the first pair warms both up and does not count."""
    backend = LocalBackend("tiny", "cpu")
    fields = {"prompt": PROMPT, "size": "1280x720", "num_frames": 17, "num_inference_steps": steps}
    served, local = [], []
    for seed in range(pairs + 1):
        began = time.perf_counter()
        job_id = server.submit(fields | {"seed": seed})
        while server.state(job_id) != "completed":
            time.sleep(POLL_S)
        server.http.get(f"/v1/videos/{job_id}/content").raise_for_status()
        served.append(time.perf_counter() - began)
        request = GenerationRequest(
            prompt=PROMPT, width=1280, height=720, num_frames=17, num_inference_steps=steps, seed=seed
        )
        began = time.perf_counter()
        backend.generate(request, GenerationContext(folder / "video.mp4", overwrite=True))
        local.append(time.perf_counter() - began)
    server_s, in_process_s = statistics.median(served[1:]), statistics.median(local[1:])
    return Overhead(pairs, server_s, in_process_s, server_s / in_process_s)


def main() -> None:
    """Measure both, print them, and write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="GETs a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = ServerProcess(folder / "data", folder / "serve.log", *OPTIONS)
        server.wait_until_ready()
        latency = measure_latency(server, arguments.rate, arguments.seconds)
        overhead = measure_overhead(server, arguments.pairs, arguments.steps, folder)
        server.stop()
    machine = {"cores": len(os.sched_getaffinity(0)), "cpu": platform.machine(), "torch": torch.__version__}
    found = {"machine": machine, "latency": asdict(latency), "overhead": asdict(overhead)}
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"GET while a video is made, {latency.rate_per_s:g} a second, {latency.requests} in all:")
    print(f"  p50 {1000 * latency.p50_s:.1f} ms, p99 {1000 * latency.p99_s:.1f} ms, worst "
          f"{1000 * latency.worst_s:.1f} ms, failed {latency.failed}")  # fmt: skip
    print(f"a job of {arguments.steps} steps, medians of {overhead.pairs} by turns:")
    print(f"  through the server {overhead.server_s:.2f} s, in process {overhead.in_process_s:.2f} s, "
          f"ratio {overhead.ratio:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
