"""One file with several connections: changes are noticed, and SQLite's errors become ours."""

from __future__ import annotations

import contextlib
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


def test_a_wrong_statement_is_reported_with_the_file(path: Path) -> None:
    with pytest.raises(StoreError, match=r"jobs\.sqlite cannot be used"):
        Database(path).run("SELECT nothing FROM nowhere")


def test_a_change_that_need_not_survive_a_power_cut_is_seen_by_others(path: Path) -> None:
    one, other = Database(path), Database(path)
    one.run("INSERT INTO workers VALUES ('w', 1, 'm', 'd', 'idle', '', NULL, NULL, 0)", durable=False)
    assert [row["name"] for row in other.run("SELECT name FROM workers")] == ["w"]


@pytest.mark.parametrize("hasty", ["DELETE FROM workers", "DELETE FROM nowhere"])
def test_after_such_a_change_the_disk_is_waited_for_again(path: Path, hasty: str) -> None:
    database = Database(path)
    with contextlib.suppress(StoreError):
        database.run(hasty, durable=False)
    full = 2
    assert database.run("PRAGMA synchronous")[0][0] == full
