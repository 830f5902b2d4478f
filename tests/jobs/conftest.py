"""The data folder of a test, and the jobs in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from server_stage import Stage

from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.store import JobStore


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
def store(folder: DataFolder) -> JobStore:
    return folder.store()


@pytest.fixture
def stage(folder: DataFolder, store: JobStore) -> Stage:
    return Stage(folder, store)
