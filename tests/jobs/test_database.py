"""One file, several connections: changes are noticed, and what SQLite raises is said in our words."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hunyuan_local.errors import StoreError
from hunyuan_local.jobs.database import Database

FAR = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


def test_a_change_by_another_ends_the_waiting(path: Path) -> None:
    waiting, other = Database(path), Database(path)
    waiting.wait_for_change(lambda: False, 0.05)
    change = "INSERT INTO workers VALUES ('w', 1, 'm', 'd', 'idle', '', NULL, NULL, 0)"
    threading.Timer(0.3, lambda: other.run(change)).start()
    began = time.monotonic()
    waiting.wait_for_change(lambda: False, FAR)
    assert time.monotonic() - began < FAR


def test_a_change_between_two_waits_is_not_missed(path: Path) -> None:
    waiting, other = Database(path), Database(path)
    waiting.wait_for_change(lambda: False, 0.05)
    other.run("INSERT INTO workers VALUES ('w', 1, 'm', 'd', 'idle', '', NULL, NULL, 0)")
    began = time.monotonic()
    waiting.wait_for_change(lambda: False, FAR)
    assert time.monotonic() - began < FAR


def test_an_end_ends_the_waiting(path: Path) -> None:
    waiting = Database(path)
    waiting.wait_for_change(lambda: True, 0.05)
    began = time.monotonic()
    waiting.wait_for_change(lambda: True, FAR)
    assert time.monotonic() - began < FAR


def test_a_wrong_statement_is_told_with_the_file(path: Path) -> None:
    with pytest.raises(StoreError, match=r"jobs\.sqlite cannot be used"):
        Database(path).run("SELECT nothing FROM nowhere")
