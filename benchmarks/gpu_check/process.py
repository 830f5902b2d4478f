"""Runs phases in child processes, so that a crash, a hang or a lack of memory affects only one phase."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from hunyuan_local.supervision import Child, exit_in_words

from .phases import Phase
from .task import BEGIN, RECORD, TASK

BENCHMARKS = Path(__file__).resolve().parents[1]
_PATHS = (str(BENCHMARKS), str(BENCHMARKS.parent), *filter(None, [os.environ.get("PYTHONPATH")]))
# Nothing is downloaded: no weights, kernels or tokenizers.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(_PATHS)}


class Process:
    """The process of one phase: imports the libraries at once, and begins when it gets its task; close it in any case.

    Args:
        phase: what it is for.
        module: what it runs; gets the folder of its files.
    """

    def __init__(self, phase: Phase, module: str = "gpu_check.task"):
        self.phase = phase
        self._folder = tempfile.TemporaryDirectory(prefix="gpu-check-")
        self.folder = Path(self._folder.name)
        hidden = {} if phase.task.get("device") == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        environment = _ENVIRONMENT | hidden | phase.environment
        self._child = Child(module, str(self.folder), environment=environment, log=self.folder / "log.txt")

    def run(self, timeout_s: float) -> dict[str, Any]:
        """Run the phase and return its record; if the process failed, the record's ``error`` has the reason."""
        (self.folder / TASK).write_text(json.dumps({"function": self.phase.function, "arguments": self.phase.task}))
        with contextlib.suppress(OSError):  # it is dead already
            self._child.connection.sendall(BEGIN)
        has_ended = self._child.wait(timeout_s)
        self._kill()
        path = self.folder / RECORD
        record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if has_ended and (self._child.exit_code == 0 or record.get("error")):
            return record
        message = f"stopped after {timeout_s:.0f} s; more time: --minutes"
        if has_ended:
            words = self._child.last_words()[:300]
            message = f"the process {exit_in_words(self._child.exit_code)}" + (f": {words}" if words else "")
        error = {"type": "ProcessDied", "stage": record.get("stage"), "message": message}
        return {"error": error} | record

    def close(self) -> None:
        """End the process and what it started, and delete its files."""
        self._kill()
        self._child.connection.close()
        self._folder.cleanup()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.kill()
