"""A worker in an actor of Ray, on whatever machine that places it: the very same worker as in a local process.

Its store and its folder reach those of the owner; see :mod:`.remote_store`. The model is loaded
once, and kept until the actor ends.
"""

from __future__ import annotations

import logging
from typing import Any

from ...config.places import temporary_folder
from ...errors import ConfigError, TerminationRequest
from ...provenance import library_versions
from ..worker import Worker
from ..worker_config import WorkerOptions
from .remote_store import Keeper, RemoteFolder, RemoteStore

logger = logging.getLogger(__name__)

_FOLDER_PREFIX = "hunyuan-local-replica-"
_FORMAT = "%(asctime)s %(message)s"


class Replica:
    """One worker; made into an actor by :class:`hunyuan_local.jobs.ray_workers.pool.RayPool`, with two threads.

    Args:
        options: of the worker, with a name that is unique among all workers of the store.
        keeper: the handle of the actor with the store's keeper.
        versions: of the libraries where the pool is.
        log_label: of the log that the keeper writes; None where Ray takes what is logged to the owner.
    """

    def __init__(self, options: WorkerOptions, keeper: Any, versions: dict[str, str], log_label: str | None = None):
        handler = logging.StreamHandler() if log_label is None else _LogSender(Keeper(keeper), log_label)
        logging.basicConfig(level=logging.INFO, format=_FORMAT, datefmt="%H:%M:%S", handlers=[handler])
        self._options, self._keeper, self._versions = options, Keeper(keeper), versions
        self._worker: Worker | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return self._options.name  # in the owner's log, in front of what is said here

    def node(self) -> str:
        """The address of the machine that it runs on."""
        import ray

        return str(ray.util.get_node_ip_address())

    def run(self) -> None:
        """Load the model, then work until :meth:`stop`; blocks.

        Raises:
            ConfigError: another version of this package is installed here.
            HunyuanLocalError: the model cannot be loaded, or the store cannot be used.
        """
        self._check_versions()
        with temporary_folder(_FOLDER_PREFIX) as root:
            folder = RemoteFolder(root, self._keeper)
            store = RemoteStore(self._keeper, folder)
            self._worker = Worker(folder, store, self._options.backend(), self._options)
            if not self._stopping:
                self._worker.run()

    def stop(self) -> bool:
        """End soon: save the running job's state and give it back; for another thread than that of :meth:`run`.

        Returns whether the worker sees to it. False: it loads the model, which looks at no switch; it holds no job,
        so that this process may be ended at once.
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
        """Refuse another version of this package; of the libraries, only say so.

        Saved states are not taken over between versions, and frames may differ.
        """
        here, there = library_versions(), self._versions
        # A build for CUDA and one for the CPU are of one version: 2.6.0+cu124, 2.6.0+cpu.
        others = {
            name: f"{name} {version} here, {there[name]} there"
            for name, version in here.items()
            if name in there and version.partition("+")[0] != there[name].partition("+")[0]
        }
        others.pop("platform", None)
        if "hunyuan-local" in others:
            raise ConfigError(
                f"the machine {self.node()} has another version of this package than the one that the pool runs on: "
                f"{others['hunyuan-local']}; install the same on every machine of the cluster"
            )
        if others:
            logger.warning(
                "%s: other versions than where the pool runs, so that frames may differ: %s",
                self._options.name, "; ".join(others.values()),
            )  # fmt: skip


class _LogSender(logging.Handler):
    """Sends each line to the store's keeper; what Ray itself logs stays here, since sending may make it log."""

    def __init__(self, keeper: Keeper, label: str):
        super().__init__()
        self._keeper, self._label = keeper, label

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] != "ray":
            self._keeper.send("log", self._label, self.format(record))
