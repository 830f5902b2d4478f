"""Runs one of the two scripts in a child process, and measures it with the system's accounting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .job import Job

BENCHMARKS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """A whole process from start to end, and its stages; bytes are peak resident memory."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    stages: dict[str, dict[str, Any]]


def run(script: str, job: Job, folder: Path, name: str, *arguments: object) -> Run:
    """Generate a job's video, ``NAME.mp4`` in ``folder``.

    Args:
        script: module of this package whose last two arguments are a video and a record of stages.
        arguments: the arguments between the job and these two.

    Raises:
        RuntimeError: the process failed; the message has the end of its output.
    """
    video, record = folder / f"{name}.mp4", folder / f"{name}.stages.json"
    video.unlink(missing_ok=True)
    wall_s, cpu_s = call(script, job, folder, name, *arguments, video, record)
    stages = json.loads(record.read_text())
    return Run(wall_s, cpu_s, max(stage["peak_bytes"] or 0 for stage in stages.values()), stages)


def call(module: str, job: Job, folder: Path, name: str, *arguments: object) -> tuple[float, float]:
    """Run a module of this package with a job; return wall and CPU seconds of the whole process.

    Raises:
        RuntimeError: the process failed; the message has the end of its output.
    """
    task, log = folder / f"{name}.json", folder / f"{name}.log"
    job.save(task)
    # Compiled blocks stay in the folder, so the next process finds them, as in real use.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    command = [sys.executable, "-m", f"versus.{module}", str(task), *map(str, arguments)]
    with log.open("w") as file:
        began = time.perf_counter()
        child = subprocess.Popen(command, cwd=BENCHMARKS, env=environment, stdout=file, stderr=file)
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{module} ended with {child.returncode}: {log.read_text()[-2000:]}")
    return wall_s, usage.ru_utime + usage.ru_stime
