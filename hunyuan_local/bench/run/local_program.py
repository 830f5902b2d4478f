"""The process that makes a bench's local videos: it keeps the model loaded, and tells time and memory of each run.

Prompts are encoded in every run: neither the cache on disk nor the last prompt's embeddings are used, or a repeat
would measure less than a new prompt costs. Nor does a run begin with memory that an earlier one
kept to use again, which would be counted as its own. Of the libraries, those for the machine card are imported before
the first run, and the model's with its loading.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...backends.base import GenerationContext
from ...backends.local.backend import LocalBackend
from ...backends.local.profile_choice import Choice
from ...config import RuntimeProfile
from ...config.places import settle_libraries
from ...ending import leave_to_parent
from ...errors import HunyuanLocalError, InvalidRequestError, ModelLoadError
from ...pipeline.quiet import hide_import_noise
from ...planner import Machine
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest
from ...streams import prepare_streams
from ...supervision import parent_connection
from ..results.machine_card import machine_card
from .outcome import Outcome

CANCEL, END = "cancel", "end"  # orders that have no answer


def serve(connection: Connection) -> None:
    """Do what is asked for, one thing at a time, until the other end is gone.

    Args:
        connection: gives ``("options", options)``, of :class:`~hunyuan_local.backends.local.backend.LocalBackend`;
            then ``("card",)``, or ``("generate", request, output)``; takes a card or an :class:`Outcome`.
    """
    prepare_streams()
    leave_to_parent()
    hide_import_noise()
    settle_libraries()
    orders: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    cancel = threading.Event()
    threading.Thread(target=_listen, args=(connection, orders.put, cancel), daemon=True).start()
    _, options = orders.get()
    backend: UncachedBackend | None = None
    while True:
        kind, *content = orders.get()
        if kind == END:
            return
        if kind == "card":
            connection.send(machine_card())
            continue
        if backend is None:
            backend = UncachedBackend(**options)
        request, output = content
        connection.send(_run(backend, request, output, cancel))


class UncachedBackend(LocalBackend):
    """The local backend, as far as it knows no prompt from before."""

    def choose(self, request: ResolvedRequest, loaded: RuntimeProfile | None, machine: Machine | None = None) -> Choice:
        """See :meth:`hunyuan_local.backends.local.backend.LocalBackend.choose`; nothing is kept on disk."""
        choice = super().choose(request, loaded, machine)
        return replace(choice, profile=choice.profile.model_copy(update={"prompt_cache": False}))

    def forget_prompts(self) -> None:
        """Have the next prompt encoded, whichever it is."""
        if self.loaded is not None:
            self.loaded.prompts.forget()


def _listen(connection: Connection, put: Callable[[tuple[Any, ...]], None], cancel: threading.Event) -> None:
    """Pass on what comes; end at once, in whatever the process is, when the parent is gone."""
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            os._exit(1)
        if order[0] == CANCEL:
            cancel.set()
        else:
            put(order)


def _run(backend: UncachedBackend, request: GenerationRequest, output: Path, cancel: threading.Event) -> Outcome:
    """One video, with the time that the call took and the most memory."""
    notes: list[str] = []
    stages: set[str] = set()
    context = GenerationContext(
        output, overwrite=True, on_note=notes.append, cancel=cancel,
        on_progress=lambda progress: stages.add(progress.stage),
    )  # fmt: skip
    counts_memory = _begin_anew(backend)
    began = time.monotonic()
    try:
        outcome = Outcome(backend.generate(request, context))
    except HunyuanLocalError as error:
        outcome = Outcome(
            error=str(error), error_kind=type(error).__name__,
            is_refused=isinstance(error, InvalidRequestError), ends_target=isinstance(error, ModelLoadError),
        )  # fmt: skip
    except Exception as error:  # whatever it is, it is this run's result, and the others go on
        outcome = Outcome(error=str(error).strip() or "no reason given", error_kind=type(error).__name__)
    total_s = time.monotonic() - began
    memory = backend.memory()
    if memory is not None:
        outcome = replace(outcome, peak_memory_bytes=memory[0], memory_of="gpu")
    elif counts_memory and (peak := _resident_peak()) is not None:
        outcome = replace(outcome, peak_memory_bytes=peak, memory_of="process")
    else:
        notes.append("peak memory: not known, since this system does not count that of one run")
    return replace(outcome, total_s=total_s, notes=notes, device=backend.device, has_loaded="load" in stages)


def _begin_anew(backend: UncachedBackend) -> bool:
    """Let go of what the run before has left, but for the model, and count memory from here.

    Returns:
        Whether the peak of the resident set can be counted.
    """
    from ...pipeline.memory.allocator import give_back_memory
    from ...pipeline.memory.device import free_device, reset_peak

    backend.forget_prompts()
    if backend.loaded is not None:  # else there is no device in use, and asking for one would take memory of it
        free_device()
    give_back_memory()
    reset_peak()
    return _reset_resident_peak()


def _reset_resident_peak() -> bool:
    """Begin the kernel's peak of the resident set anew (man proc_pid_clear_refs); whether it can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def _resident_peak() -> int | None:
    """Bytes of the resident set at its peak since then, mapped files included."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


if __name__ == "__main__":
    serve(Connection(parent_connection().detach()))
