"""The worker processes of one machine: started, started again when they die, ended together.

Each worker is a process, so that a crash of the model, or the kernel's killing it for its
memory, takes nothing else down. It ends when this process does; see :mod:`hunyuan_local.supervision`.
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

# Exit codes of errors that the same start would meet again, such as a folder that cannot be written; a lack of memory
# and the death of a process may pass.
_LASTING: dict[int, type[HunyuanLocalError]] = {1: HunyuanLocalError, 2: ConfigError, 3: ModelLoadError}
_MOST_EARLY_DEATHS = 5


@dataclass
class _Slot:
    """The place of one worker: one device."""

    label: str
    environment: dict[str, str]
    name: str = ""
    child: Child | None = None
    restarts: Restarts = field(default_factory=Restarts)


def _is_hopeless(slot: _Slot) -> bool:
    """Whether each of the last workers here has ended soon after its start, and none works now."""
    if slot.child is not None and not slot.restarts.is_young:
        return False
    return slot.restarts.early_deaths >= _MOST_EARLY_DEATHS - (slot.child is not None)


class Pool(Protocol):
    """Workers on the jobs of a store, wherever they are."""

    @property
    def size(self) -> int:
        """How many there are to be."""
        ...

    @property
    def deaths(self) -> int:
        """How many have ended that nobody asked to."""
        ...

    @property
    def last_words(self) -> str:
        """What the last of those said; empty if that is not known."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether no job will be worked on any more."""
        ...

    @property
    def error(self) -> HunyuanLocalError | None:
        """Why the last of those ended, where that is known as an error of ours."""
        ...

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
        options: of each worker; the pool names them.
        environments: variables for each worker, such as the GPU it sees.
        log_dir: where each worker's log goes, ``worker0.log`` and so on; None is this process's standard error.
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
        """Start what is not running and due; to be called every second or so."""
        for slot in self._slots:
            if (child := slot.child) is not None and child.exit_code is not None:
                self._bury(slot, child)
            if slot.child is None and not self._ending and slot.restarts.is_due:
                self._spawn(slot)

    def ask_to_end(self) -> None:
        """Tell every worker to save its state and end; returns at once, and may be called from a signal handler."""
        self._ending = True
        for slot in self._slots:
            if (child := slot.child) is not None:  # another thread may bury it at this moment
                child.ask_to_end()

    def stop(self, grace_s: float) -> None:
        """End every worker; one that takes longer than ``grace_s`` seconds is killed.

        Its job goes on from the last saved step.
        """
        self.ask_to_end()
        deadline = time.monotonic() + grace_s
        for slot in self._slots:
            if (child := slot.child) is None:
                continue
            if not child.wait(max(0.0, deadline - time.monotonic())):
                logger.warning("%s did not end within %.0f s and is killed", slot.name, grace_s)
                child.kill()
                self._store.give_back_all_of(slot.name)  # that it was ended from here is no failed attempt
            self._bury(slot, child)

    def _spawn(self, slot: _Slot) -> None:
        slot.name = worker_name(slot.label)
        log = None if self._log_dir is None else self._log_dir / f"{slot.label}.log"
        child = Child("hunyuan_local", "worker", "--options-from-parent", environment=slot.environment, log=log)
        options = self._options.model_copy(update={"name": slot.name})
        with contextlib.suppress(OSError):  # it has died already, which the next tick sees
            child.connection.sendall(json_text(options).encode() + b"\n")
        slot.child = child
        slot.restarts.begin()

    def _bury(self, slot: _Slot, child: Child) -> None:
        """Give back what a dead worker held, and set when the next one starts."""
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
        """Start no more workers: they end with the same error again and again."""
        self._ending = self.has_ended = True
        words = self.last_words.removeprefix("error: ") or "each has said above why"
        self.error = kind(
            f"the workers cannot work: {slot.restarts.early_deaths} in a row have ended soon after their start, the "
            f"last one {how}: {words}"
        )


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
