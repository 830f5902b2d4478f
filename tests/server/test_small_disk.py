"""A disk that is really full and a folder that is really read-only, in a mount namespace; see ``small_disk.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "small_disk.py"
NAMESPACE = ["unshare", "--map-root-user", "--mount", "bash", "-c"]


@pytest.fixture(scope="module", autouse=True)
def namespaces(starts_process: None) -> None:
    """These tests need Linux namespaces, which some containers forbid."""
    probe = subprocess.run([*NAMESPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True)
    if probe.returncode:
        pytest.skip("no mount namespaces here, so nothing was tested on a full or read-only disk")


def run(folder: Path, scenario: str) -> dict[str, Any]:
    mount = f"mount -t tmpfs -o size=3m tmpfs '{folder}' && exec '{sys.executable}' '{SCRIPT}' '{folder}' {scenario}"
    done = subprocess.run([*NAMESPACE, mount], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("disk"), "submit")


def test_on_a_full_disk_each_dialect_says_unavailable(submitted: dict[str, Any]) -> None:
    assert submitted["codes"] == [503, 503, 503]


def test_each_says_it_in_its_own_shape(submitted: dict[str, Any]) -> None:
    openai, wavespeed, novita = submitted["bodies"]
    assert (set(openai), set(wavespeed), set(novita)) == (
        {"error"}, {"code", "message", "error"}, {"code", "reason", "message", "metadata"}
    )  # fmt: skip


def test_with_space_again_jobs_are_taken(submitted: dict[str, Any]) -> None:
    assert submitted["after"] == 200


def test_no_job_came_of_what_was_refused(submitted: dict[str, Any]) -> None:
    assert submitted["jobs"] == 1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("disk"), "write")


def test_a_worker_on_a_full_disk_says_so_and_ends(written: dict[str, Any]) -> None:
    assert "disk" in written["stopped"]


def test_its_job_is_done_by_the_next_one_with_the_same_frames(written: dict[str, Any]) -> None:
    assert (written["status"], written["same"]) == ("succeeded", True)


def test_only_the_decoding_is_repeated(written: dict[str, Any]) -> None:
    assert written["denoise_s"] == 0


def test_a_read_only_folder_is_refused_at_the_start(tmp_path: Path) -> None:
    done = run(tmp_path, "read_only")
    assert (done["code"], "data_dir=" in done["said"], "Traceback" in done["said"]) == (2, True, False)


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("disk"), "protect")


def test_with_a_read_only_store_submissions_are_refused_and_jobs_shown(protected: dict[str, Any]) -> None:
    assert (protected["refused"], protected["read"]) == (503, 200)


def test_the_error_says_that_the_file_must_be_writable(protected: dict[str, Any]) -> None:
    assert "no job was lost: make the file and its folder writable" in protected["error"]


def test_a_thread_that_met_a_read_only_store_writes_again_when_it_is_writable(protected: dict[str, Any]) -> None:
    assert (protected["after"], protected["jobs"]) == (200, 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("disk"), "finish")


def test_a_worker_whose_store_becomes_read_only_says_so_and_ends(finished: dict[str, Any]) -> None:
    assert "make the file and its folder writable" in finished["stopped"]


def test_its_video_is_kept_and_recorded_by_the_next_one(finished: dict[str, Any]) -> None:
    assert (finished["status"], finished["same"]) == ("succeeded", True)
