"""Runs phases in child processes, so that a crash, a hang or a lack of memory affects only one phase.

A process imports the libraries while the phase before it runs, and begins when it gets its task. The task is a JSON
file, and so is its record, which the process updates during the work: results from before its death are kept.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from hunyuan_local.durable import replacing
from hunyuan_local.errors import HunyuanLocalError
from hunyuan_local.supervision import exit_in_words

from .phases import Phase

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check"
_SLOW = ("videos", "offload", "kernels")  # import the libraries
_RECORD, _TASK, _BEGIN = "record.json", "task.json", b"begin\n"


class Child:
    """The process of one phase, from its start on; close it in any case."""

    def __init__(self, phase: Phase, command: list[str] | None = None):
        self.phase = phase
        self._folder = tempfile.TemporaryDirectory(prefix="gpu-check-")
        self.folder = Path(self._folder.name)
        # Nothing is downloaded: no weights, kernels or tokenizers.
        environment = os.environ | {"HF_HUB_OFFLINE": "1"} | phase.environment
        if phase.task["device"] == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with (self.folder / "stderr.txt").open("wb") as stderr:
            self._process = subprocess.Popen(
                command or [sys.executable, str(SCRIPT), "--task", str(self.folder / _TASK)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def run(self, timeout_s: float) -> dict[str, Any]:
        """Run the phase and return its record; if the process failed, the record's ``error`` has the reason."""
        (self.folder / _TASK).write_text(json.dumps({"function": self.phase.function} | self.phase.task))
        death: str | None = None
        try:
            self._process.communicate(_BEGIN, timeout=timeout_s)
            if self._process.returncode != 0:
                death = f"the process {exit_in_words(self._process.returncode)}"
        except subprocess.TimeoutExpired:
            death = f"stopped after {timeout_s:.0f} s; more time: --minutes"
            self._kill()
        path = self.folder / _RECORD
        record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if death is not None and not record.get("error"):
            said = (self.folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
            message = death if death.startswith("stopped") or not said else f"{death}: {said[-1][:300]}"
            record["error"] = {"type": "ProcessDied", "stage": record.get("stage"), "message": message}
        return record

    def close(self) -> None:
        """End the process and what it started, and delete its files."""
        self._kill()
        self._folder.cleanup()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def wait_and_do(path: Path) -> int:
    """Main function of the child process: import the libraries, wait for the task, run it; return the exit code."""
    for module in _SLOW:
        importlib.import_module(f".{module}", __package__)
    if sys.stdin.buffer.readline() != _BEGIN:
        return 0  # the parent has ended, or its time is over
    return do(path)


def do(path: Path) -> int:
    """Run the task in this file and record it next to it; return the exit code."""
    task = json.loads(path.read_text())
    record: dict[str, Any] = {}

    def save() -> None:
        with replacing(path.with_name(_RECORD)) as partial:
            partial.write_text(json.dumps(record))

    module, function = task["function"].split(":")
    try:
        getattr(importlib.import_module(f".{module}", __package__), function)(task, record, save)
    except Exception as error:  # any error is a result about this machine
        if not isinstance(error, HunyuanLocalError):
            traceback.print_exc()
        record["error"] = {
            "type": type(error).__name__,
            "stage": getattr(error, "stage", None) or record.get("stage"),
            "message": (str(error).strip() or type(error).__name__).split("\n")[0],
            "peak_bytes": getattr(error, "peak_bytes", None),  # of the GPU, if its memory ran out
        }
    save()
    return 1 if record.get("error") else 0
