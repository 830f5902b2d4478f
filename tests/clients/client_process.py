"""Clients that run in separate processes, because they cannot all be installed in one environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest
from running_server import own_environment

SCRIPTS = Path(__file__).with_name("scripts")
MARK = "answer: "  # precedes each answer, to separate it from other output of a client
# Where scripts/test installs what cannot be in the environment itself.
INSTALLED = Path(sys.prefix) / "clients"


class ClientError(Exception):
    """The exception that a client raised in its process: the names of its class and base classes, and its fields."""

    def __init__(self, kinds: list[str], message: str, fields: dict[str, Any]):
        super().__init__(message)
        self.kinds, self.fields = kinds, fields


class ClientProcess:
    """A script of tests/clients/scripts, which handles one call after another.

    Args:
        folder: the folder of :data:`INSTALLED` that it needs, if any; without it, the test is skipped.
    """

    def __init__(self, script: str, folder: str | None = None):
        self.is_javascript = script.endswith(".mjs")
        home = INSTALLED / folder if folder else None
        if self.is_javascript and shutil.which("node") is None:
            pytest.skip("there is no node on the PATH: the JavaScript clients do not run")
        if home is not None and not (home / "stamp").is_file():
            pytest.skip(f"{home} is not there or not whole: scripts/test installs it")
        self._environment = own_environment()
        if self.is_javascript:
            self._command = ["node", SCRIPTS / script, home]
        else:
            self._command = [sys.executable, SCRIPTS / script]
            if home is not None:
                self._environment["PYTHONPATH"] = str(home)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, env=self._environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        """Close its input, which ends it."""
        self._process.communicate()
        assert self._process.returncode == 0

    def call(self, call: dict[str, Any]) -> Any:
        """Send a call; returns the script's answer.

        Raises:
            ClientError: the client raised something.
        """
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        said = []
        while not (line := self._process.stdout.readline()).startswith(MARK):
            assert line, "the client has ended: " + "".join(said)
            said.append(line)
        answer = json.loads(line.removeprefix(MARK))
        if "error" in answer:
            error, message = answer.pop("error"), answer.pop("message")
            raise ClientError([error] if isinstance(error, str) else error, message, answer)
        return answer["value"]
