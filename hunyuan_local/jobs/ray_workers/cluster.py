"""Connects to a Ray cluster, or starts a Ray on this machine for one run; turns Ray's errors into ConfigError.

Independent of jobs.
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
_OBJECT_STORE_BYTES = 512 * 1024**2  # for a Ray started here: files in transit; larger data spills to disk
# Ray reads these when it is imported or started. Values set by the user take precedence.
_HABITS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # two replicas may log the same line
    "RAY_COLOR_PREFIX": "0",
}
_REMEDY = (
    "give --ray-address HOST:PORT of a cluster's head, or auto, on a machine where 'ray start --address=HOST:PORT' "
    "was run; or omit it, and unset RAY_ADDRESS, to use a Ray on this machine alone"
)


def import_ray() -> Any:
    """Import Ray with usage statistics and log decoration turned off.

    Raises:
        ConfigError: Ray is not installed.
    """
    for name, value in _HABITS.items():
        os.environ.setdefault(name, value)
    require_ray()
    import ray

    return ray


def connect(address: str | None, cpus: int, *, log_here: bool = True) -> bool:
    """Join a cluster, or start a Ray that ends with this process; returns True in the latter case.

    Args:
        address: ``HOST:PORT`` of a cluster's head, or ``auto`` for the cluster that this machine belongs to. None uses
            ``RAY_ADDRESS``; if that is not set, starts a Ray on this machine alone.
        cpus: minimum number of CPUs of a Ray started here, since tasks that need more would wait forever.
        log_here: forward the standard error of actors to this process.

    Raises:
        ConfigError: Ray is not installed; the address is invalid or does not answer; the cluster runs another version
            of Ray or Python; or this machine is not a node of it.
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
    """The message of a Ray error in one line, without hints that concern only Ray's internals."""
    said = str(error).partition("Some common causes")[0]
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(" ".join(lines).split())


def _check_reachable(address: str) -> None:
    """Check that the address accepts connections, since Ray would retry for minutes."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdecimal():
        raise ConfigError(
            f"ray_address={address!r}: must be HOST:PORT or auto; Ray's client (ray://) is not supported, since the "
            f"job store and the videos are kept on a node of the cluster; {_REMEDY}"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"ray_address={address!r}: no answer: {error}; {_REMEDY}") from error


def _check_answers(address: str) -> None:
    """Check that a Ray cluster answers; runs in a separate process, since Ray's own call cannot be interrupted."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        # The result does not matter: joining the cluster reports other errors better.
        subprocess.run(
            [*command, *([] if address == "auto" else ["--address", address])], capture_output=True, timeout=_ANSWER_S
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"ray_address={address!r}: no Ray cluster answers within {_ANSWER_S:.0f} s; {_REMEDY}"
        ) from error


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Restore our SIGTERM handler, which Ray replaces by one that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
