"""Options that are refused before any replica starts."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from hunyuan_local.cli.shared.worker_pool import Placement, make_pool
from hunyuan_local.config import LoraConfig, load_model_config
from hunyuan_local.errors import ConfigError
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.jobs.pool import WorkerPool
from hunyuan_local.jobs.ray_workers import cluster
from hunyuan_local.jobs.ray_workers.pool import RayPool
from hunyuan_local.jobs.store import JobStore
from hunyuan_local.jobs.worker_config import WorkerOptions

TINY = load_model_config("tiny")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "no answer"),
        ("ray://127.0.0.1:10001", "ray://.* not supported"),
        ("here", "must be HOST:PORT"),
        ("localhost:x", "must be HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_refused(
    folder: DataFolder, store: JobStore, address: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        RayPool(store, folder, WorkerOptions(model=TINY), 1, address=address)


@pytest.mark.usefixtures("starts_process")
def test_what_answers_and_is_no_cluster_is_refused(
    folder: DataFolder, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match="no Ray cluster answers within"):
            RayPool(store, folder, WorkerOptions(model=TINY), 1, address=address)


def test_the_address_may_be_in_the_environment(
    folder: DataFolder, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"ray_address='127\.0\.0\.1:1': no answer"):
        RayPool(store, folder, WorkerOptions(model=TINY), 1)


def test_no_replicas_are_refused(folder: DataFolder, store: JobStore) -> None:
    with pytest.raises(ConfigError, match="num_replicas=0: must be 1 or more"):
        RayPool(store, folder, WorkerOptions(model=TINY), 0)


def test_without_ray_the_extra_is_named(folder: DataFolder, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'hunyuan-local\[ray\]'"):
        RayPool(store, folder, WorkerOptions(model=TINY), 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"executor": "ray", "workers": 2}, "workers=2: with --executor ray, use --num-replicas"),
        ({"executor": "ray"}, "num_replicas: must be given"),
        ({"num_replicas": 2}, "num_replicas=2: applies only to Ray; add --executor ray, or use --workers"),
        ({"ray_address": "auto"}, "ray_address='auto': applies only to Ray; add --executor ray"),
    ],
)
def test_options_of_the_other_executor_are_refused(
    folder: DataFolder, store: JobStore, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        make(folder, store, **options)


def make(folder: DataFolder, store: JobStore, lora: tuple[LoraConfig, ...] = (), **placement: Any) -> Any:
    """The pool that the command line would create."""
    options = WorkerOptions(model="tiny", profile="cpu", lora=lora, checkpoint_every=5)
    return make_pool(store, folder, options, Placement(**placement))


def test_an_adapter_that_other_machines_would_not_find_is_refused(
    folder: DataFolder, store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "style.safetensors").touch()
    with pytest.raises(ConfigError, match="give an absolute path"):
        make(folder, store, executor="ray", num_replicas=1, lora=(LoraConfig(path="style.safetensors"),))


def test_without_an_executor_the_workers_are_processes(folder: DataFolder, store: JobStore) -> None:
    assert isinstance(make(folder, store, workers=2), WorkerPool)
