"""Runs the command line, usually in the test's process, because starting Python with all libraries takes seconds.

``run_here`` is for what a command answers. What depends on the start or the end of a process (a library's words at its
import, a kill, a GPU hidden by the environment) needs a real one: ``PROGRAM``.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hunyuan_local.cli.main import main

# Ctrl-C reaches it even if the tests run in the background of a shell, whose processes ignore it.
PROGRAM = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from hunyuan_local.cli.main import main; main()",
]


def run_here(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``hunyuan-local`` with these arguments in a folder, with these additional environment variables."""
    command = ["hunyuan-local", *map(str, arguments)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, _handlers_of_a_process():
        patch.chdir(cwd)
        patch.setattr(sys, "argv", command)
        for name, value in {"COLUMNS": "80", **variables}.items():
            patch.setenv(name, value)
        try:
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                main()
        except SystemExit as end:
            return subprocess.CompletedProcess(command, end.code, stdout.getvalue(), stderr.getvalue())
    raise AssertionError("the command did not end with an exit code")


def run_in_a_process(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the same command in a separate process."""
    environment = os.environ | {"COLUMNS": "80"} | variables
    return subprocess.run([*PROGRAM, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True)


@contextlib.contextmanager
def signalled(number: signal.Signals, when: Callable[[], bool]) -> Iterator[None]:
    """Inside, the command that runs here receives a signal once, as soon as a condition is true."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.005):
            if when():
                signal.pthread_kill(threading.main_thread().ident, number)
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def _handlers_of_a_process() -> Iterator[None]:
    """Ctrl-C as in a new process, and afterwards what was there before, also in place of the command's own handlers."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    }
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
