"""The way into a cluster of Ray, or to a Ray of this machine's own for one run; what goes wrong, in words.

Knows nothing about jobs.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...config.extras import require_ray
from ...errors import ConfigError

_REACH_S = 5.0
_ANSWER_S = 30.0
_OBJECT_STORE_BYTES = 512 * 1024**2  # of a Ray of our own: for files on their way; what is more goes to the disk
# Ray reads these when it is imported or started. What the user has set stays.
_HABITS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # two replicas may say the same
    "RAY_COLOR_PREFIX": "0",
}
_REMEDY = (
    "give --ray-address HOST:PORT of a cluster's head, or auto, on a machine where 'ray start --address=HOST:PORT' "
    "was run; or leave it out, and RAY_ADDRESS too, for a Ray of this machine alone"
)


def import_ray() -> Any:
    """The library, told to keep quiet.

    Raises:
        ConfigError: it is not installed.
    """
    for name, value in _HABITS.items():
        os.environ.setdefault(name, value)
    require_ray()
    import ray

    return ray


def connect(address: str | None, cpus: int, *, log_here: bool = True) -> bool:
    """Join a cluster, or start a Ray that ends with this process; True for the latter.

    Args:
        address: ``HOST:PORT`` of a cluster's head; ``auto``, the one that this machine is a node of; None is
            ``RAY_ADDRESS``, and without it a Ray of this machine alone.
        cpus: a Ray that is started here has at least so many, since waiting for more would be in vain.
        log_here: what actors write to their standard error comes to this process's.

    Raises:
        ConfigError: Ray is not installed; an address that is none, or where no cluster answers; another version
            of Ray or Python there; or this machine is no node of it.
    """
    ray = import_ray()
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if where == "local":
        cores = len(os.sched_getaffinity(0))
        options = {
            "num_cpus": max(cores, cpus), "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES,
        }  # fmt: skip
    else:
        if where != "auto":
            _check_reachable(where)
        _check_answers(where)
    try:
        with _own_signal_handlers():
            ray.init(where, logging_level="error", log_to_driver=log_here, **options)
    except (ray.exceptions.RayError, ConnectionError, OSError, RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(f"ray_address={where!r}: Ray cannot be used: {in_one_line(error)}; {_REMEDY}") from error
    return where == "local"


def in_one_line(error: BaseException) -> str:
    """What Ray says of an error, without the names that mean something only to Ray."""
    said = str(error).partition("Some common causes")[0]
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(" ".join(lines).split())


def _check_reachable(address: str) -> None:
    """Refuse at once what Ray would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdecimal():
        raise ConfigError(
            f"ray_address={address!r}: must be HOST:PORT or auto; Ray's client (ray://) is not supported, since the "
            f"job store and the videos are kept on a node of the cluster; {_REMEDY}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"ray_address={address!r}: nothing answers there: {error}; {_REMEDY}") from error


def _check_answers(address: str) -> None:
    """Refuse what takes connections and is no cluster, in a process of its own, for Ray cannot be interrupted."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        # What it finds is not looked at: Ray itself says it better when it is joined.
        subprocess.run(
            [*command, *([] if address == "auto" else ["--address", address])], capture_output=True, timeout=_ANSWER_S
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"ray_address={address!r}: no cluster of Ray answers there within {_ANSWER_S:.0f} s; {_REMEDY}"
        ) from error


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handler for SIGTERM that Ray would replace by one that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
