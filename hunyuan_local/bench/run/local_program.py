"""The process that generates a bench's local videos: keeps the model loaded, and reports time and memory of each run.

Every run encodes its prompt: neither the prompt cache on disk nor the embeddings of the last prompt are used, because
a repeat would then measure less than a new prompt costs. Every run also starts with the allocators' caches emptied,
because memory that an earlier run kept would count as its own. Libraries that the machine card needs are imported
before the first run; those of the model are imported when it loads.
"""

from __future__ import annotations

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
from ...errors import HunyuanLocalError, InvalidRequestError, ModelLoadError
from ...pipeline.library_imports import skip_libraries_in_collections
from ...pipeline.library_output import hide_import_noise
from ...planner import Machine
from ...planner.host_memory import reset_resident_peak, resident_peak
from ...resolved import ResolvedRequest
from ...schema import GenerationRequest
from ...signals import leave_to_parent
from ...stdio import prepare_streams
from ...supervision import parent_connection
from ..results.machine_card import machine_card
from .outcome import Outcome

CANCEL, END = "cancel", "end"  # commands without an answer


def serve(connection: Connection) -> None:
    """Run commands one at a time until the other end of the connection closes.

    Args:
        connection: receives ``("options", options)`` of :class:`~hunyuan_local.backends.local.backend.LocalBackend`,
            then ``("card",)`` or ``("generate", request, output)``; sends a machine card or an :class:`Outcome`.
    """
    prepare_streams()
    leave_to_parent()
    hide_import_noise()
    skip_libraries_in_collections()
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
    """The local backend without its prompt caches."""

    def choose(
        self, request: ResolvedRequest, loaded: RuntimeProfile | None, machine: Machine | None = None, videos: int = 1
    ) -> Choice:
        """Choose a profile as the local backend does, with the prompt cache on disk disabled."""
        choice = super().choose(request, loaded, machine, videos)
        return replace(choice, profile=choice.profile.model_copy(update={"prompt_cache": False}))

    def forget_prompts(self) -> None:
        """Drop the embeddings of the last prompt, so that the next run encodes its prompt."""
        if self.kept.loaded is not None:
            self.kept.loaded.prompts.forget()


def _listen(connection: Connection, put: Callable[[tuple[Any, ...]], None], cancel: threading.Event) -> None:
    """Queue incoming commands; exit immediately when the parent is gone, whatever the process is doing."""
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
    """Generate one video; measure the duration of the call and its peak memory."""
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
    except Exception as error:  # any error is the result of this run; the other runs continue
        outcome = Outcome(error=str(error).strip() or "no reason given", error_kind=type(error).__name__)
    total_s = time.monotonic() - began
    memory = backend.memory()
    if memory is not None:
        outcome = replace(outcome, peak_memory_bytes=memory[0], memory_of="gpu")
    elif counts_memory and (peak := resident_peak()) is not None:
        outcome = replace(outcome, peak_memory_bytes=peak, memory_of="process")
    else:
        notes.append("peak memory: unknown, because this system cannot measure it for a single run")
    return replace(outcome, total_s=total_s, notes=notes, device=backend.device, has_loaded="load" in stages)


def _begin_anew(backend: UncachedBackend) -> bool:
    """Free what the previous run left, except the model, and reset the memory peaks.

    Returns:
        Whether the system can reset the peak of the resident set.
    """
    from ...pipeline.memory.allocator import give_back_memory
    from ...pipeline.memory.device import free_device, reset_peak

    backend.forget_prompts()
    if backend.kept.loaded is not None:  # otherwise no device is in use, and a query would allocate memory on it
        free_device()
    give_back_memory()
    reset_peak()
    return reset_resident_peak()


if __name__ == "__main__":
    serve(Connection(parent_connection().detach()))
