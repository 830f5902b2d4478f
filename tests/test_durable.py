"""Unfinished files and folders: locked by live processes, deleted when no process holds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hunyuan_local.durable import OwnFolder, begin_partial, discard, discard_all, replacing, sweep

DEAD = 2**22 + 1  # no process has this id
LEFT = f".video.mp4.{DEAD}-0a1b2c3d.encode.partial"


def test_what_a_dead_process_has_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / LEFT).write_bytes(b"half")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_this_process_writes_stays(tmp_path: Path) -> None:
    partial = begin_partial(tmp_path / "video.mp4")
    sweep(tmp_path)
    assert partial.exists()
    discard(partial)


@pytest.mark.parametrize("name", ["video.mp4", ".hidden", "notes.1234.tmp", "a.part", ".video.mp4.partial"])
def test_a_file_of_the_users_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [name]


def test_a_leftover_of_this_very_number_is_swept(tmp_path: Path) -> None:
    """In a container, every process may have the id 1."""
    (tmp_path / f".video.mp4.{os.getpid()}-0a1b2c3d.partial").touch()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_a_living_process_of_an_older_version_writes_without_a_lock_stays(tmp_path: Path) -> None:
    (tmp_path / f".video.mp4.{os.getppid()}-0a1b2c3d.partial").touch()
    sweep(tmp_path)
    assert len(os.listdir(tmp_path)) == 1


def test_a_leftover_is_swept_although_a_younger_process_has_its_number(tmp_path: Path) -> None:
    left = tmp_path / f".video.mp4.{os.getppid()}-0a1b2c3d.partial"
    left.touch()
    os.utime(left, (0, 0))
    sweep(tmp_path)
    assert not left.exists()


def test_a_state_that_an_older_version_has_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / f"latents-0a1b.safetensors.{DEAD}.tmp").touch()
    (tmp_path / "latents-0a1b.safetensors").touch()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["latents-0a1b.safetensors"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    (tmp_path / LEFT).symlink_to(tmp_path / "mine")
    sweep(tmp_path)
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    sweep(tmp_path / "missing")


def test_the_next_writer_sweeps_the_folder(tmp_path: Path) -> None:
    (tmp_path / LEFT).touch()
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_replaced_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret", mode=0o600) as partial:
        partial.write_text("x")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_process_that_ends_deletes_what_it_was_writing(tmp_path: Path) -> None:
    begin_partial(tmp_path / "video.mp4")
    discard_all()
    assert os.listdir(tmp_path) == []


def test_a_leftover_that_cannot_be_deleted_does_not_fail_finished_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    with replacing(tmp_path / "a") as partial:
        partial.write_text("done")
        monkeypatch.setattr(Path, "unlink", refuse)
    assert (tmp_path / "a").read_text() == "done"


def test_a_folder_of_this_process_is_not_taken_by_the_next(tmp_path: Path) -> None:
    with OwnFolder("own-", tmp_path) as first, OwnFolder("own-", tmp_path) as second:
        assert first.is_dir() and second.is_dir()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_a_dead_process_has_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "own-1").mkdir()
    (tmp_path / "own-1" / "weights").touch()
    with OwnFolder("own-", tmp_path) as folder:
        assert os.listdir(tmp_path) == [folder.name]


@pytest.mark.usefixtures("starts_process")
def test_what_a_process_writes_is_swept_only_once_it_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom hunyuan_local.durable import begin_partial\n"
        "print(begin_partial(Path(sys.argv[1]) / 'video.mp4'), flush=True)\ntime.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        partial = Path(process.stdout.readline().strip())
        sweep(tmp_path)
        was_kept = partial.exists()
        process.send_signal(signal.SIGKILL)
    sweep(tmp_path)
    assert was_kept and not partial.exists()


def test_a_draft_is_left_for_a_while(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.mp4.7-0a.draft", tmp_path / ".b.mp4.7-0b.draft"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    sweep(tmp_path)
    assert os.listdir(tmp_path) == [new.name]
