"""Work in a process of its own: what crashes, hangs or runs out of memory there leaves the rest alone.

A task is a JSON file, and so is its record, which the process writes again and again as it goes on: what
it had found before it died is kept.
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
# Kinds of tasks; each function takes the task, the record to fill, and a call that saves the record.
_KINDS = {
    "card": "card:describe",
    "attention": "kernels:compare",
    "copies": "copies:measure",
    "mode": "measure:measure",
    "weights": "weights:write",
}
_RECORD = "record.json"


def run(task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Do a task in another process; an ``error`` in the record says why it is not complete.

    Args:
        task: its ``kind``, its ``device``, and what that kind needs.
        timeout_s: after so many seconds the process is killed.
    """
    # No weight, kernel or tokenizer is fetched from anywhere.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    if task["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(task))
        return collect([sys.executable, str(SCRIPT), "--task", str(path)], Path(folder), timeout_s, environment)


def collect(command: list[str], folder: Path, timeout_s: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a command and read the record that it left in a folder, with its death as the error if it died."""
    with (folder / "stderr.txt").open("w+", errors="replace") as stderr:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, timeout=timeout_s,
                env=environment,
            )  # fmt: skip
            death = None if done.returncode == 0 else f"the process {exit_in_words(done.returncode)}"
        except subprocess.TimeoutExpired:
            death = f"took longer than {timeout_s / 60:g} minutes and was ended (--timeout)"
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
    """What the other process does: the task of this file, recorded beside it. Returns its exit code."""
    task = json.loads(path.read_text())
    record: dict[str, Any] = {}

    def save() -> None:
        with replacing(path.with_name(_RECORD)) as partial:
            partial.write_text(json.dumps(record))

    module, function = _KINDS[task["kind"]].split(":")
    try:
        getattr(importlib.import_module(f".{module}", __package__), function)(task, record, save)
    except Exception as error:  # whatever it is, it is a finding about this machine
        if not isinstance(error, HunyuanLocalError):
            traceback.print_exc()
        record["error"] = {
            "type": type(error).__name__,
            "stage": getattr(error, "stage", None) or record.get("stage"),
            "message": (str(error).strip() or type(error).__name__).split("\n")[0],
            "peak_bytes": getattr(error, "peak_bytes", None),  # of the GPU, where its memory ran out
        }
    save()
    return 1 if record.get("error") else 0
