"""The worker processes of one machine: started, started again when they die, ended together.

A worker is a process of its own, so that a crash of the model, or the kernel's killing it for its
memory, takes nothing else down. It ends when this process does, even by SIGKILL: its standard input
is a pipe from here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from ..errors import ConfigError, HunyuanLocalError
from .store import JobStore
from .worker_config import worker_name

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 60.0
_HEALTHY_S = 60.0  # a worker that lived so long starts again at once


@dataclass
class _Slot:
    """The place of one worker: one device."""

    label: str
    environment: dict[str, str]
    name: str = ""
    process: subprocess.Popen | None = None
    started: float = 0.0
    pause_s: float = 1.0
    due: float = field(default=0.0)


class Pool(Protocol):
    """Workers on the jobs of a store, wherever they are.

    Attributes:
        size: how many there are to be.
        deaths: how many have ended that nobody asked to.
        last_words: what the last of those said, if that is known.
        has_ended: no job will be worked on any more.
        error: why the last of those ended, where that is known as an error of ours.
    """

    size: int
    deaths: int
    last_words: str
    has_ended: bool
    error: HunyuanLocalError | None

    def tick(self) -> None:
        """Start what is not running and due; to be called every second or so."""
        ...

    def ask_to_end(self) -> None:
        """Tell every worker to save its state and end; returns at once, and may be called from a signal handler."""
        ...

    def stop(self, grace_s: float) -> None:
        """End every worker; one that takes longer than ``grace_s`` seconds is killed."""
        ...


class WorkerPool:
    """``count`` workers, one a visible GPU where there are some; see :class:`Pool`.

    Args:
        store: theirs; a dead worker's job is given back at once, without waiting for its lease.
        options: command-line options of ``hunyuan-local worker``.
        environments: variables for each worker, such as the GPU it sees.
        log_dir: where each worker's log goes, ``worker0.log`` and so on; None is this process's standard error.
    """

    def __init__(
        self,
        store: JobStore,
        options: Sequence[str],
        environments: Sequence[dict[str, str]],
        log_dir: Path | None = None,
    ):
        self._store = store
        self._options = list(options)
        self._slots = [_Slot(f"worker{number}", dict(env)) for number, env in enumerate(environments)]
        self._log_dir = log_dir
        self._ending = False
        self.size, self.deaths, self.last_words, self.has_ended = len(self._slots), 0, "", False
        self.error: HunyuanLocalError | None = None

    def tick(self) -> None:
        """Start what is not running and due; to be called every second or so."""
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                self._bury(slot)
            if slot.process is None and not self._ending and time.monotonic() >= slot.due:
                self._spawn(slot)

    def ask_to_end(self) -> None:
        """Tell every worker to save its state and end; returns at once, and may be called from a signal handler."""
        self._ending = True
        for slot in self._slots:
            if (process := slot.process) is not None:  # another thread may bury it at this moment
                process.terminate()

    def stop(self, grace_s: float) -> None:
        """End every worker; one that takes longer than ``grace_s`` seconds is killed.

        Its job goes on from the last saved step.
        """
        self.ask_to_end()
        deadline = time.monotonic() + grace_s
        for slot in self._slots:
            if slot.process is None:
                continue
            try:
                slot.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not end within %.0f s and is killed", slot.name, grace_s)
                slot.process.kill()
                slot.process.wait()
                self._store.give_back_all_of(slot.name)  # that it was ended from here is no failed attempt
            self._bury(slot)

    def _spawn(self, slot: _Slot) -> None:
        slot.name = worker_name(slot.label)
        command = [sys.executable, "-m", "hunyuan_local", "worker", *self._options]
        with self._log_of(slot) as log:
            slot.process = subprocess.Popen(
                [*command, "--name", slot.name, "--end-with-stdin"],
                stdin=subprocess.PIPE,
                stderr=log,
                env=os.environ | slot.environment,
                start_new_session=True,  # Ctrl-C in the terminal is for this process, which then ends the workers
                preexec_fn=_yield_cores,
            )
        slot.started = time.monotonic()

    def _log_of(self, slot: _Slot) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        """The file for what a worker says."""
        if self._log_dir is None:
            return contextlib.nullcontext()
        self._log_dir.mkdir(parents=True, exist_ok=True)
        return (self._log_dir / f"{slot.label}.log").open("ab")

    def _last_line(self, slot: _Slot) -> str:
        if self._log_dir is None:
            return ""
        text = (self._log_dir / f"{slot.label}.log").read_text(encoding="utf-8", errors="replace")
        return (text.strip().splitlines() or [""])[-1]

    def _bury(self, slot: _Slot) -> None:
        """Give back what a dead worker held, and set when the next one starts."""
        process, slot.process = slot.process, None
        process.stdin.close()
        self._store.expire(slot.name)
        self._store.worker_reports.leave(slot.name)
        if self._ending:
            return
        self.deaths += 1
        self.last_words = self._last_line(slot)
        lived_s = time.monotonic() - slot.started
        slot.pause_s = 1.0 if lived_s > _HEALTHY_S else min(2 * slot.pause_s, _LONGEST_PAUSE_S)
        slot.due = time.monotonic() + slot.pause_s
        logger.warning("%s ended with %s; a new one in %.0f s", slot.name, _said(process.returncode), slot.pause_s)


def worker_environments(count: int, gpus: int, each: int = 1) -> list[dict[str, str]]:
    """Variables for each of ``count`` workers: on a machine with GPUs ``each`` of them, else a share of the cores.

    Raises:
        ConfigError: there are fewer GPUs than the workers need.
    """
    if gpus:
        if each > gpus:
            raise ConfigError(
                f"context_parallel={each}: this machine has {gpus} visible GPUs; give --context-parallel {gpus} at most"
            )
        if count * each > gpus:
            onto = "onto one" if each == 1 else f"onto each of {each}"
            raise ConfigError(
                f"workers={count}: this machine has {gpus} visible GPUs, and each worker loads the whole model "
                f"{onto}; give --workers {gpus // each} or fewer"
            )
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = visible[:gpus] or [str(number) for number in range(gpus)]  # CUDA stops at the first that is none
        shares = [names[number * each : (number + 1) * each] for number in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
    processes = count * each
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(count)]
    return [{"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))} for _ in range(count)]


def _yield_cores() -> None:
    """In the new process: let answers go before the work, where both want the same cores."""
    os.nice(10)


def _said(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
