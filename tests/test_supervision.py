"""Child processes: they end with their parent, and their exit status in words."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hunyuan_local.supervision import Child, Restarts, exit_in_words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-signal.SIGKILL, "was killed by SIGKILL, probably because main memory ran out"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-(signal.SIGRTMIN + 1), f"was killed by signal {signal.SIGRTMIN + 1}"),
        (None, "is gone"),
    ],
)
def test_an_exit_in_words(code: int | None, words: str) -> None:
    assert exit_in_words(code) == words


@pytest.fixture
def start(starts_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Child]:
    """Starts a child that runs some code."""

    def start(code: str, log: Path | None = None) -> Child:
        (tmp_path / "a_child.py").write_text(code)
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return Child("a_child", environment={"PYTHONPATH": path}, log=log)

    return start


def test_the_last_words_are_the_error_and_not_what_follows_it(start: Callable[..., Child], tmp_path: Path) -> None:
    code = "import atexit\natexit.register(print, 'by the way')\nraise ValueError('oh')"
    child = start(code, tmp_path / "log")
    assert child.wait(60)
    assert child.last_words() == "ValueError: oh"


def test_the_last_words_are_not_those_of_an_earlier_process(start: Callable[..., Child], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ValueError: of another\n")
    child = start("print('well')", tmp_path / "log")
    assert child.wait(60)
    assert child.last_words() == "well"


def test_a_child_ends_when_its_parent_is_killed(start: Callable[..., Child], tmp_path: Path) -> None:
    child = start(
        "import signal\nfrom hunyuan_local.supervision import *\nconnection = parent_connection()\n"
        "connection.sendall(b'x')\nend_with_parent(connection)\nsignal.pause()"
    )
    assert child.connection.recv(1) == b"x"
    child.connection.close()  # as the kernel does then
    assert child.wait(60)
    assert child.exit_code == -signal.SIGTERM


def test_what_a_child_leaves_behind_does_not_hide_its_end(start: Callable[..., Child]) -> None:
    child = start(
        "import subprocess, sys\nfrom hunyuan_local.supervision import *\nconnection = parent_connection()\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "connection.sendall(b'%d\\n' % left.pid)"
    )
    lines = child.connection.makefile("rb")
    left = int(lines.readline())
    try:
        child.connection.settimeout(60)
        assert lines.readline() == b""
    finally:
        os.kill(left, signal.SIGKILL)


def test_pauses_double_after_short_lives_and_start_again_after_a_long_one() -> None:
    now = 0.0
    restarts = Restarts(lambda: now)
    restarts.begin()
    pauses = [restarts.end() for _ in range(7)]
    now = 100.0
    assert (pauses, restarts.end()) == ([2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0], 1.0)


def test_a_restart_is_due_after_the_pause() -> None:
    now = 0.0
    restarts = Restarts(lambda: now)
    restarts.end()
    due_at_once, now = restarts.is_due, 2.0
    assert (due_at_once, restarts.is_due) == (False, True)
