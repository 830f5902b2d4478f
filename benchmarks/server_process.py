"""A real ``hunyuan-local serve`` for benchmarks and tests: started, watched from outside, killed, stopped."""

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
        data_dir: its jobs; another server's may be taken up.
        log: appended to.
        options: of ``hunyuan-local serve``.
        key: what its calls show, where the options ask for one.
        environment: variables added to this process's own, of which those of the package are left out.
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
        atexit.register(self.process.kill)  # a measurement that fails leaves no server behind
        self.url = self.wait_until("the server listens", lambda: _LISTENING.search(self.said))[1]
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    @property
    def said(self) -> str:
        """What this server and its workers have written."""
        return self._log.read_bytes()[self._before :].decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Until a worker has loaded the model."""
        self.wait_until("a worker is ready", self._is_ready)

    def submit(self, fields: dict[str, Any]) -> str:
        """A job in the OpenAI-style format; its id."""
        return self.http.post("/v1/videos", json=fields).raise_for_status().json()["id"]

    def state(self, job_id: str) -> str:
        """The job's status in that format."""
        return self.http.get(f"/v1/videos/{job_id}").raise_for_status().json()["status"]

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        self.http.close()
        self.process.kill()
        self.process.wait()

    def stop(self, patience_s: float = 60) -> int:
        """SIGTERM; the exit code."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def wait_until(self, what: str, look: Callable[[], T | None]) -> T:
        """What ``look`` finds, as soon as it finds something.

        Raises:
            RuntimeError: the server ended, or it took too long.
        """
        deadline = time.monotonic() + self.patience_s
        while not (found := look()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"in vain waited until {what}; the server said:\n{self.said}")
            time.sleep(0.05)
        return found

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:  # if it has ended, that is seen next, with what it said
            return False


def own_environment() -> dict[str, str]:
    """This process's variables without those that would lead the package, or its clients, elsewhere."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("HUNYUAN_LOCAL_")}
    return ours | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
