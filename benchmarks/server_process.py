"""A real ``hunyuan-local serve`` for benchmarks and tests: start, observe, kill and stop it."""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx

_LISTENING = re.compile(r"^hunyuan-local is listening on (http://\S+)$", re.MULTILINE)

T = TypeVar("T")


class ServerProcess:
    """One server on a free port of this machine.

    Args:
        data_dir: folder of its jobs; can be that of an earlier server.
        log: log file, appended to.
        options: options of ``hunyuan-local serve``.
        key: API key for requests, if the options require one.
        environment: variables added to this process's environment, from which the package's own are removed.
    """

    patience_s = 300.0

    def __init__(
        self,
        data_dir: Path,
        log: Path,
        *options: object,
        key: str | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self._log = log
        self._before = log.stat().st_size if log.exists() else 0
        command = [
            sys.executable, "-m", "hunyuan_local", "serve", "--no-page", "--port", "0",
            "--data-dir", data_dir, *options,
        ]  # fmt: skip
        with log.open("a") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=own_environment() | dict(environment or {}),
            )
        atexit.register(self.process.kill)  # a failed measurement must not leave a server running
        self.url = self.wait_until("the server listens", lambda: _LISTENING.search(self.said))[1]
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    @property
    def said(self) -> str:
        """Output of this server and its workers so far."""
        return self._log.read_bytes()[self._before :].decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Wait until a worker has loaded the model."""
        self.wait_until("a worker is ready", self._is_ready)

    def submit(self, fields: dict[str, Any]) -> str:
        """Submit a job in the OpenAI format; return its id."""
        return self.http.post("/v1/videos", json=fields).raise_for_status().json()["id"]

    def state(self, job_id: str) -> str:
        """The job's status in that format."""
        return self.http.get(f"/v1/videos/{job_id}").raise_for_status().json()["status"]

    def kill(self) -> None:
        """Send SIGKILL, like the kernel when memory runs out."""
        self.http.close()
        self.process.kill()
        self.process.wait()

    def stop(self, patience_s: float = 60) -> int:
        """Send SIGTERM; return the exit code."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def wait_until(self, what: str, look: Callable[[], T | None]) -> T:
        """Poll ``look`` until it returns something, and return that.

        Raises:
            RuntimeError: the server ended, or the time limit passed.
        """
        deadline = time.monotonic() + self.patience_s
        while not (found := look()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"waited without success until {what}; output of the server:\n{self.said}")
            time.sleep(0.05)
        return found

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:  # if the server has ended, the next check reports it with its output
            return False


def own_environment() -> dict[str, str]:
    """This process's environment without variables that would redirect the package or its clients."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HUNYUAN_LOCAL_")}
    return ours | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
