"""Workers on several machines: one Ray actor each, restarted elsewhere when it or its machine dies.

The process with this pool owns the job store and the data folder. On the same machine, an actor gives the replicas
access to the store (:mod:`.store_actor`). All actors end when this process does, even after SIGKILL. Replicas that
Ray cannot place yet stay pending, which Ray's autoscaler counts as demand.

Retries are left to the store rather than Ray, since attempts are counted and saved states are kept there.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config import RuntimeProfile
from ...errors import ConfigError, HunyuanLocalError
from ...provenance import library_versions
from ...supervision import Restarts
from ..folder import DataFolder
from ..store import JobStore
from ..worker_config import WorkerOptions, worker_name
from .cluster import connect, import_ray, in_one_line
from .replica import Replica
from .store_actor import StoreActor

logger = logging.getLogger(__name__)

_PLACING_S = 30.0  # by then, Ray has started the process if there are resources for it
_LOOK_S = 0.2


@dataclass
class _Slot:
    """One replica position, with Ray's references to its pending calls."""

    label: str
    name: str = ""
    actor: Any = None
    placed: Any = None
    run: Any = None
    stopped: Any = None
    started: float = 0.0
    is_noted: bool = False
    restarts: Restarts = field(default_factory=Restarts)


class RayPool:
    """``num_replicas`` workers in a Ray cluster. Implements :class:`hunyuan_local.jobs.pool.Pool`.

    Args:
        store: the job store; a dead replica's job is released when Ray reports the death or the lease expires.
        folder: the store's data folder, on this machine.
        options: options of every replica; the pool sets the name. A ``RuntimeProfile`` determines the resource: GPUs
            for ``cuda``, cores for ``cpu``; otherwise GPUs if the cluster has any now.
        address: see :func:`hunyuan_local.jobs.ray_workers.cluster.connect`.
        log_dir: folder for the replicas' logs, ``replica0.log`` and so on; None logs to this process's standard error.
        each: number of GPUs or cores per replica, all on one machine.

    Raises:
        ConfigError: ``num_replicas`` is below 1, or needs more GPUs than this machine alone has; or Ray cannot be
            used.
    """

    def __init__(
        self,
        store: JobStore,
        folder: DataFolder,
        options: WorkerOptions,
        num_replicas: int,
        *,
        address: str | None = None,
        each: int = 1,
        log_dir: Path | None = None,
    ):
        if num_replicas < 1:
            raise ConfigError(f"num_replicas={num_replicas}: must be 1 or more")
        self._store, self._options, self._log_dir = store, options, log_dir
        self._slots = [_Slot(f"replica{number}") for number in range(num_replicas)]
        self._ending = False
        self.size, self.deaths, self.last_words, self.has_ended = num_replicas, 0, "", False
        self.error: HunyuanLocalError | None = None
        self._ray = ray = import_ray()
        self._keeper = None
        self._joined = not ray.is_initialized()  # otherwise the caller connected, and stays connected
        is_alone = connect(address, num_replicas * each, log_here=log_dir is None) if self._joined else False
        try:
            self._resources = self._resources_of_each(each, is_alone)
            self._keeper = self._start_keeper(folder)
        except BaseException:
            self._leave()
            raise

    def tick(self) -> None:
        """Start replicas that are missing and due, and forward a request to end; call this about once a second."""
        for slot in self._slots:
            if slot.actor is not None:
                if self._is_done(slot.run):
                    self._remove(slot)
                else:
                    self._note_waiting(slot)
            if slot.actor is None and not self._ending and slot.restarts.is_due:
                self._spawn(slot)
        if self._ending:
            self._forward_end()

    def ask_to_end(self) -> None:
        """Ask every replica to save its state and end; returns immediately, and is safe in a signal handler.

        The next :meth:`tick` or :meth:`stop` forwards the request, since a handler must not wait for Ray's locks.
        """
        self._ending = True

    def stop(self, grace_s: float) -> None:
        """Stop every replica, kill those that take longer than ``grace_s`` seconds, and leave the cluster.

        Their jobs resume from the last state that was sent.
        """
        self.ask_to_end()
        deadline = time.monotonic() + grace_s
        while working := [slot for slot in self._slots if slot.actor is not None]:
            self._forward_end()
            for slot in working:
                if self._is_done(slot.run) or not self._has_state_to_save(slot):
                    self._remove(slot)
                elif time.monotonic() >= deadline:
                    logger.warning("%s did not end within %.0f s and is killed", slot.name, grace_s)
                    self._remove(slot)
            if runs := [slot.run for slot in working if slot.actor is not None]:
                self._ray.wait(runs, timeout=_LOOK_S)
        self._leave()

    def _resources_of_each(self, each: int, is_alone: bool) -> dict[str, float]:
        """The Ray resources of one replica: GPUs or cores; warns if some replicas have to wait for resources."""
        profile = self._options.profile
        device = profile.device if isinstance(profile, RuntimeProfile) else None
        found = self._ray.cluster_resources()
        name = "GPU" if device == "cuda" or (device is None and found.get("GPU")) else "CPU"
        there = int(found.get(name, 0))
        if there < self.size * each:
            text = f"num_replicas={self.size}: each replica needs {each} {name}s, but there are only {there}"
            if is_alone:
                raise ConfigError(
                    f"{text} on this machine; give --num-replicas {there // each}, or the --ray-address of a cluster, "
                    "or a profile for the CPU"
                )
            logger.warning("%s in the cluster now; the other replicas wait until Ray can place them", text)
        gpus, cpus = (each, 0) if name == "GPU" else (0, each)
        return {"num_gpus": float(gpus), "num_cpus": float(cpus)}

    def _start_keeper(self, folder: DataFolder) -> Any:
        """Start the actor that gives replicas access to the store, on this machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        actor = self._ray.remote(StoreActor).options(
            num_cpus=0, max_concurrency=4 + 2 * self.size, max_restarts=-1, scheduling_strategy=here
        )
        return actor.remote(folder.root.resolve(), self._log_dir and self._log_dir.resolve())

    def _spawn(self, slot: _Slot) -> None:
        slot.name = worker_name(slot.label)
        # Two threads: one to work, one to receive the call to stop.
        actor = self._ray.remote(Replica).options(**self._resources, max_concurrency=2, max_restarts=0)
        options = self._options.model_copy(update={"name": slot.name})
        slot.actor = actor.remote(options, self._keeper, library_versions(), self._log_dir and slot.label)
        slot.placed, slot.run, slot.stopped = slot.actor.node.remote(), slot.actor.run.remote(), None
        slot.started, slot.is_noted = time.monotonic(), False
        slot.restarts.begin()

    def _note_waiting(self, slot: _Slot) -> None:
        """Log once that Ray has not placed a replica yet."""
        if not slot.is_noted and time.monotonic() - slot.started > _PLACING_S:
            slot.is_noted = True
            if not self._is_done(slot.placed):
                gpus, cores = self._resources["num_gpus"], self._resources["num_cpus"]
                what, count = ("GPU", gpus) if gpus else ("core", cores)
                logger.info("%s waits until a machine of the cluster has %g free %ss", slot.name, count, what)

    def _remove(self, slot: _Slot) -> None:
        """Release a dead replica's job, and schedule its replacement."""
        why = "" if self._ending else self._why_it_ended(slot)
        self._ray.kill(slot.actor)  # the process would outlive its work
        slot.actor = None
        if self._ending:
            self._store.give_back_all_of(slot.name)  # we ended it, so the attempt does not count
        self._store.expire(slot.name)
        self._store.worker_reports.leave(slot.name)
        if self._ending:
            return
        self.deaths += 1
        self.last_words = why
        logger.warning("%s ended: %s; a new one in %.0f s", slot.name, why, slot.restarts.end())

    def _why_it_ended(self, slot: _Slot) -> str:
        exceptions = self._ray.exceptions
        try:
            self._ray.get(slot.run)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, HunyuanLocalError):
                return str(error.cause)
            return f"unexpected {type(error.cause).__name__}: {error.cause}"
        except exceptions.ActorUnavailableError:
            return "its process or its machine died, or the network failed"
        except exceptions.RayError as error:
            if "No module named 'hunyuan_local'" in (said := str(error)):
                return "hunyuan-local is not installed on a machine of the cluster; install the same version on all"
            return in_one_line(error) or said
        return "for an unknown reason"

    def _forward_end(self) -> None:
        for slot in self._slots:
            if slot.actor is not None and slot.stopped is None:
                slot.stopped = slot.actor.stop.remote()

    def _has_state_to_save(self, slot: _Slot) -> bool:
        """Whether a replica that was asked to end has state to save; False if it is not placed yet or is loading."""
        if not self._is_done(slot.placed):
            return False
        if not self._is_done(slot.stopped):
            return True
        try:
            return bool(self._ray.get(slot.stopped))
        except self._ray.exceptions.RayError:
            return False  # already dead

    def _is_done(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=0)[0])

    def _leave(self) -> None:
        if self._keeper is not None and self._ray.is_initialized():
            self._ray.kill(self._keeper)
            self._keeper = None
        if self._joined:
            self._joined = False
            self._ray.shutdown()
