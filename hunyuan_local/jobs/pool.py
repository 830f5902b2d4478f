"""The worker processes of one machine: starts, restarts and stops them.

Each worker is a separate process, so a crash of the model or an out-of-memory kill affects nothing else. Workers end
when this process does; see :mod:`hunyuan_local.supervision`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError, HunyuanLocalError, ModelLoadError
from ..json_text import json_text
from ..supervision import Child, Restarts, exit_in_words
from .store import JobStore
from .worker_config import WorkerOptions, worker_name

logger = logging.getLogger(__name__)

# Exit codes of errors that a restart would meet again, such as a folder that is not writable. Running out of memory
# and killed processes are not among them.
_LASTING: dict[int, type[HunyuanLocalError]] = {1: HunyuanLocalError, 2: ConfigError, 3: ModelLoadError}
_MOST_EARLY_DEATHS = 5


@dataclass
class _Slot:
    """One worker position, with its device; its process is replaced when it dies."""

    label: str
    environment: dict[str, str]
    name: str = ""
    child: Child | None = None
    restarts: Restarts = field(default_factory=Restarts)


def _is_hopeless(slot: _Slot) -> bool:
    """Whether the latest workers in this slot all died soon after their start, and none is running normally."""
    if slot.child is not None and not slot.restarts.is_young:
        return False
    return slot.restarts.early_deaths >= _MOST_EARLY_DEATHS - (slot.child is not None)


class Pool(Protocol):
    """Workers for the jobs of a store, wherever they run."""

    @property
    def size(self) -> int:
        """Intended number of workers."""
        ...

    @property
    def deaths(self) -> int:
        """Number of workers that died without being asked to end."""
        ...

    @property
    def last_words(self) -> str:
        """The last output of the worker that died most recently; empty if unknown."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the pool has stopped for good and runs no more jobs."""
        ...

    @property
    def error(self) -> HunyuanLocalError | None:
        """The error that ended the worker that died most recently, if known."""
        ...

    def tick(self) -> None:
        """Start workers that are missing and due; call this about once a second."""
        ...

    def ask_to_end(self) -> None:
        """Ask every worker to save its state and end; returns immediately, and is safe in a signal handler."""
        ...

    def stop(self, grace_s: float) -> None:
        """Stop every worker; kill those that take longer than ``grace_s`` seconds."""
        ...


class WorkerPool:
    """Local worker processes, one per visible GPU if there are GPUs. Implements :class:`Pool`.

    Args:
        store: the job store; a dead worker's job is released immediately, without waiting for its lease.
        options: options of every worker; the pool sets the name.
        environments: environment variables per worker, such as the visible GPU.
        log_dir: folder for the workers' logs, ``worker0.log`` and so on; None logs to this process's standard error.
    """

    def __init__(
        self,
        store: JobStore,
        options: WorkerOptions,
        environments: Sequence[dict[str, str]],
        log_dir: Path | None = None,
    ):
        self._store = store
        self._options = options
        self._slots = [_Slot(f"worker{number}", dict(env)) for number, env in enumerate(environments)]
        self._log_dir = log_dir
        self._ending = False
        self.size, self.deaths, self.last_words, self.has_ended = len(self._slots), 0, "", False
        self.error: HunyuanLocalError | None = None

    def tick(self) -> None:
        """Start workers that are missing and due; call this about once a second."""
        for slot in self._slots:
            if (child := slot.child) is not None and child.exit_code is not None:
                self._remove(slot, child)
            if slot.child is None and not self._ending and slot.restarts.is_due:
                self._spawn(slot)

    def ask_to_end(self) -> None:
        """Ask every worker to save its state and end; returns immediately, and is safe in a signal handler."""
        self._ending = True
        for slot in self._slots:
            if (child := slot.child) is not None:  # another thread may remove it at any moment
                child.ask_to_end()

    def stop(self, grace_s: float) -> None:
        """Stop every worker; kill those that take longer than ``grace_s`` seconds.

        Their jobs resume from the last saved step.
        """
        self.ask_to_end()
        deadline = time.monotonic() + grace_s
        for slot in self._slots:
            if (child := slot.child) is None:
                continue
            if not child.wait(max(0.0, deadline - time.monotonic())):
                logger.warning("%s did not end within %.0f s and is killed", slot.name, grace_s)
                child.kill()
                self._store.give_back_all_of(slot.name)  # we killed it, so the attempt does not count
            self._remove(slot, child)

    def _spawn(self, slot: _Slot) -> None:
        slot.name = worker_name(slot.label)
        log = None if self._log_dir is None else self._log_dir / f"{slot.label}.log"
        child = Child("hunyuan_local", "worker", "--options-from-parent", environment=slot.environment, log=log)
        options = self._options.model_copy(update={"name": slot.name})
        with contextlib.suppress(OSError):  # already dead; the next tick notices
            child.connection.sendall(json_text(options).encode() + b"\n")
        slot.child = child
        slot.restarts.begin()

    def _remove(self, slot: _Slot, child: Child) -> None:
        """Release a dead worker's job, and schedule its replacement."""
        slot.child = None
        child.connection.close()
        self._store.expire(slot.name)
        self._store.worker_reports.leave(slot.name)
        if self._ending:
            return
        self.deaths += 1
        self.last_words = child.last_words()
        how, pause_s = exit_in_words(child.exit_code), slot.restarts.end()
        if child.exit_code in _LASTING and all(map(_is_hopeless, self._slots)):
            self._give_up(slot, _LASTING[child.exit_code], how)
            return
        logger.warning("%s %s; a new one in %.0f s", slot.name, how, pause_s)

    def _give_up(self, slot: _Slot, kind: type[HunyuanLocalError], how: str) -> None:
        """Stop restarting workers, since they keep ending with the same error."""
        self._ending = self.has_ended = True
        words = self.last_words.removeprefix("error: ") or "see their messages above"
        self.error = kind(
            f"the workers cannot work: {slot.restarts.early_deaths} in a row ended soon after their start, the "
            f"last one {how}: {words}"
        )


def worker_environments(count: int, gpus: int, each: int = 1) -> list[dict[str, str]]:
    """Environment variables of ``count`` workers: ``each`` GPUs per worker, or without GPUs a share of the CPU cores.

    Raises:
        ConfigError: the machine has fewer GPUs than the workers need.
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
        names = visible[:gpus] or [str(number) for number in range(gpus)]  # CUDA ignores names after an invalid one
        shares = [names[number * each : (number + 1) * each] for number in range(count)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]
    processes = count * each
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{} for _ in range(count)]
    return [{"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // processes))} for _ in range(count)]
