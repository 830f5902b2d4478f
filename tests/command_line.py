"""The command line without a process of its own: one start of Python with all libraries takes several seconds.

For what a command answers. What depends on the start itself (signals, a library's words at its import, what a GPU
hidden by the environment changes) needs a real process.
"""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hunyuan_local.cli.main import main


def run_here(*arguments: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``hunyuan-local`` with these arguments in a folder, with these environment variables besides the others."""
    command = ["hunyuan-local", *map(str, arguments)]
    stdout, stderr = io.StringIO(), io.StringIO()
    on_termination = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", command)
        for name, value in {"COLUMNS": "80", **variables}.items():
            patch.setenv(name, value)
        try:
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                main()
        except SystemExit as end:
            return subprocess.CompletedProcess(command, end.code, stdout.getvalue(), stderr.getvalue())
        finally:
            signal.signal(signal.SIGTERM, on_termination)
    raise AssertionError("the command did not end with an exit code")
