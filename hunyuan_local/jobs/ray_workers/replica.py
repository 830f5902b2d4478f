"""A worker in a Ray actor, on any machine of the cluster; runs the same code as a local worker process.

Its store and folder forward to the owner's, see :mod:`.remote_store`. The model is loaded once and kept until the
actor ends.
"""

from __future__ import annotations

import logging
from typing import Any

from ...config.places import temporary_folder
from ...errors import ConfigError, TerminationRequest
from ...pipeline.library_imports import skip_libraries_in_collections
from ...provenance import library_versions
from ..worker import Worker
from ..worker_config import WorkerOptions
from .remote_store import Keeper, RemoteFolder, RemoteStore

logger = logging.getLogger(__name__)

_FOLDER_PREFIX = "hunyuan-local-replica-"
_FORMAT = "%(asctime)s %(message)s"


class Replica:
    """One worker. :class:`hunyuan_local.jobs.ray_workers.pool.RayPool` runs it as an actor with two threads.

    Args:
        options: of the worker, with a name that is unique among the workers of the store.
        keeper: handle of the store actor.
        versions: library versions where the pool runs.
        log_label: name of the log that the store actor writes; None if Ray forwards the log to the owner.
    """

    def __init__(self, options: WorkerOptions, keeper: Any, versions: dict[str, str], log_label: str | None = None):
        handler = logging.StreamHandler() if log_label is None else _LogSender(Keeper(keeper), log_label)
        logging.basicConfig(level=logging.INFO, format=_FORMAT, datefmt="%H:%M:%S", handlers=[handler])
        self._options, self._keeper, self._versions = options, Keeper(keeper), versions
        self._worker: Worker | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return self._options.name  # Ray's prefix for this actor's log lines

    def node(self) -> str:
        """The address of the machine that the actor runs on."""
        import ray

        return str(ray.util.get_node_ip_address())

    def run(self) -> None:
        """Load the model, then work until :meth:`stop`; blocks.

        Raises:
            ConfigError: this machine has another version of this package.
            HunyuanLocalError: the model cannot be loaded, or the store cannot be used.
        """
        self._check_versions()
        skip_libraries_in_collections()  # Ray runs nothing else in the process of an actor
        with temporary_folder(_FOLDER_PREFIX) as root:
            folder = RemoteFolder(root, self._keeper)
            store = RemoteStore(self._keeper, folder)
            self._worker = Worker(folder, store, self._options.backend(), self._options)
            if not self._stopping:
                self._worker.run()

    def stop(self) -> bool:
        """End soon: save the running job's state and give it back; call this from another thread than :meth:`run`.

        Returns:
            True if the worker will stop by itself. False if it is loading the model, which cannot be interrupted; it
            holds no job, so the process can be killed.
        """
        self._stopping = True
        if self._worker is None:
            return False
        try:
            self._worker.stop()
        except TerminationRequest:
            return False
        return True

    def _check_versions(self) -> None:
        """Refuse another version of this package; only warn about other library versions.

        Saved states do not carry over between package versions, and frames may differ between library versions.
        """
        here, there = library_versions(), self._versions
        # Ignore the build variant: 2.6.0+cu124 and 2.6.0+cpu are the same version.
        others = {
            name: f"{name} {version} here, {there[name]} there"
            for name, version in here.items()
            if name in there and version.partition("+")[0] != there[name].partition("+")[0]
        }
        others.pop("platform", None)
        if "hunyuan-local" in others:
            raise ConfigError(
                f"the machine {self.node()} has another version of this package than the machine with the pool: "
                f"{others['hunyuan-local']}; install the same version on every machine of the cluster"
            )
        if others:
            logger.warning(
                "%s: library versions differ from those of the pool's machine, so frames may differ: %s",
                self._options.name, "; ".join(others.values()),
            )  # fmt: skip


class _LogSender(logging.Handler):
    """Sends each log record to the store actor, except Ray's own, since sending may make Ray log again."""

    def __init__(self, keeper: Keeper, label: str):
        super().__init__()
        self._keeper, self._label = keeper, label

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] != "ray":
            self._keeper.send("log", self._label, self.format(record))
