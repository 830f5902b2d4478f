"""The folder of jobs: their files and secrets."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hunyuan_local.errors import ConfigError
from hunyuan_local.jobs.folder import DataFolder, default_data_dir
from hunyuan_local.schema import GenerationRequest


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_LOCAL_DATA_DIR", "/somewhere")
    assert default_data_dir() == Path("/somewhere")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(ConfigError, match=r"data_dir=.*--data-dir"):
        DataFolder(tmp_path / "data")


def test_a_secret_stays_the_same(folder: DataFolder) -> None:
    assert folder.secret("links") == DataFolder(folder.root).secret("links")


def test_each_secret_is_its_own(folder: DataFolder) -> None:
    assert folder.secret("links") != folder.secret("webhook")


def test_only_the_owner_reads_a_secret(folder: DataFolder) -> None:
    folder.secret("links")
    assert stat.S_IMODE((folder.root / "links.secret").stat().st_mode) == 0o600


def test_who_asks_first_at_once_gets_the_same_secret(folder: DataFolder) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: folder.secret("links"), range(32)))) == 1


def test_all_files_of_a_job_are_removed(folder: DataFolder) -> None:
    job = folder.store().enqueue(GenerationRequest(prompt="a fox"), "tiny")
    folder.video(job).write_bytes(b"video")
    folder.unfinished(job).mkdir()
    (folder.unfinished(job) / "latents").write_bytes(b"latents")
    folder.remove(job)
    assert not folder.video(job).exists() and not folder.unfinished(job).exists()


def test_only_the_owner_looks_into_the_folder(folder: DataFolder) -> None:
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
