"""Runs tasks in child processes, so that a crash, a hang or a lack of memory affects only one task.

A task is a JSON file, and so is its record, which the process updates during the work: results from before its death
are kept.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from hunyuan_local.durable import replacing
from hunyuan_local.errors import HunyuanLocalError
from hunyuan_local.supervision import exit_in_words

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gpu_check"
# Kinds of tasks; each function takes the task, the record to fill, and a function that saves the record.
_KINDS = {
    "card": "card:describe",
    "attention": "kernels:compare",
    "copies": "copies:measure",
    "mode": "measure:measure",
    "weights": "weights:write",
}
_RECORD = "record.json"


def run(task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Run a task in another process; if the record is incomplete, its ``error`` has the reason.

    Args:
        task: ``kind``, ``device``, and the arguments of that kind.
        timeout_s: time limit after which the process is killed.
    """
    # Nothing is downloaded: no weights, kernels or tokenizers.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    if task["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(task))
        return collect([sys.executable, str(SCRIPT), "--task", str(path)], Path(folder), timeout_s, environment)


def collect(command: list[str], folder: Path, timeout_s: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a command and read its record; if it died, the record has that as its error."""
    with (folder / "stderr.txt").open("w+", errors="replace") as stderr:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, timeout=timeout_s,
                env=environment,
            )  # fmt: skip
            death = None if done.returncode == 0 else f"the process {exit_in_words(done.returncode)}"
        except subprocess.TimeoutExpired:
            death = f"took longer than {timeout_s / 60:g} minutes and was stopped (--timeout)"
        stderr.seek(0)
        said = [line.rstrip() for line in stderr if line.strip()]
    path = folder / _RECORD
    record = json.loads(path.read_text()) if path.is_file() else {}
    if death is not None and not record.get("error"):
        record["error"] = {"type": "ProcessDied", "stage": record.get("stage"), "message": death}
    if record.get("error"):
        print("\n".join(f"    | {line[:200]}" for line in said[-12:]), file=sys.stderr)
    return record


def do(path: Path) -> int:
    """Main function of the child process: run the task in this file and record it; return the exit code."""
    task = json.loads(path.read_text())
    record: dict[str, Any] = {}

    def save() -> None:
        with replacing(path.with_name(_RECORD)) as partial:
            partial.write_text(json.dumps(record))

    module, function = _KINDS[task["kind"]].split(":")
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
