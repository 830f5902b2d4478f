"""Wall seconds, CPU seconds and peak resident memory of each stage of a process. Imports nothing heavy."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Stage:
    """Cost of one stage; the peak is that of the whole process during the stage, or None if unknown."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int | None = None


class Stages:
    """A stopwatch with one running stage at a time; stages with the same name add up."""

    def __init__(self) -> None:
        self.found: dict[str, Stage] = {}
        self._name: str | None = None
        self._wall = self._cpu = 0.0

    def enter(self, name: str | None) -> None:
        """End the running stage and start this one, unless it is None."""
        now, cpu = time.perf_counter(), time.process_time()
        if self._name is not None:
            stage = self.found.setdefault(self._name, Stage())
            stage.wall_s += now - self._wall
            stage.cpu_s += cpu - self._cpu
            peak = _peak_bytes()
            stage.peak_bytes = peak if peak is None else max(peak, stage.peak_bytes or 0)
        if name != self._name:
            _forget_peak()
        self._name, self._wall, self._cpu = name, now, cpu

    def save(self, path: Path) -> None:
        """Write all stages as JSON."""
        path.write_text(json.dumps({name: asdict(stage) for name, stage in self.found.items()}))


def _peak_bytes() -> int | None:
    """Peak resident memory since the last ``_forget_peak``: Linux's VmHWM."""
    if not _STATUS.is_file():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    """Reset the peak to the current resident memory: write 5 to clear_refs, see proc(5)."""
    if _CLEAR.is_file():
        _CLEAR.write_text("5")
