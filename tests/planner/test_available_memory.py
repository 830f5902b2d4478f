"""Main memory that a process can have, and how torch's allocators are set: read from files and the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hunyuan_local.config import allocator
from hunyuan_local.config.allocator import Allocator, this_allocator
from hunyuan_local.planner import host_memory
from hunyuan_local.planner.host_memory import available_bytes, total_bytes
from hunyuan_local.planner.machine import detect_machine

GIB = 2**30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB, of which 40 are available and 1 is this process's."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    (proc / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemFree: 2 kB\nMemAvailable:   {40 * 2**20} kB\n")
    (proc / "self" / "status").write_text(f"Name:\tpython\nVmRSS:\t  {2**20} kB\n")
    (proc / "self" / "cgroup").write_text("0::/user.slice/job\n")
    monkeypatch.setattr(host_memory, "PROC", proc)
    monkeypatch.setattr(host_memory, "CGROUPS", groups)
    monkeypatch.setattr(host_memory.os, "sysconf", {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}.get)
    return tmp_path


def limit(folder: Path, limit: str, used: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


def test_what_other_programs_hold_is_not_available(system: Path) -> None:
    assert (total_bytes(), available_bytes()) == (64 * GIB, 41 * GIB)


def test_a_containers_limit_less_its_usage_is_available(system: Path) -> None:
    limit(system / "cgroup", str(16 * GIB), 6 * GIB)
    assert (total_bytes(), available_bytes()) == (16 * GIB, 11 * GIB)


def test_the_limit_of_a_group_above_counts_too(system: Path) -> None:
    limit(system / "cgroup" / "user.slice" / "job", "max", 2 * GIB)
    limit(system / "cgroup" / "user.slice", str(24 * GIB), 20 * GIB)
    assert available_bytes() == 5 * GIB


def test_files_that_the_kernel_drops_first_are_available(system: Path) -> None:
    limit(system / "cgroup", str(16 * GIB), 14 * GIB, cached=10 * GIB)
    assert available_bytes() == 13 * GIB


def test_version_1_of_control_groups_is_read(system: Path) -> None:
    folder = system / "cgroup" / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(f"{8 * GIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{5 * GIB}\n")
    assert available_bytes() == 4 * GIB


def test_no_limit_of_version_1_is_none(system: Path) -> None:
    folder = system / "cgroup" / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert available_bytes() == 41 * GIB


def test_a_system_that_does_not_say_what_is_available_has_all_of_it(system: Path) -> None:
    (system / "proc" / "meminfo").unlink()
    assert available_bytes() == 64 * GIB


def test_the_plan_for_this_machine_counts_what_is_available(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan_local.planner.machine.has_cuda_driver", lambda: False)
    assert detect_machine().host_memory_bytes == 41 * GIB


# How torch's allocators are set.


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    allocator._torch_version.cache_clear()
    for name in allocator.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.platform, "release", lambda: "6.8.0-generic")
    yield
    allocator._torch_version.cache_clear()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("PYTORCH_ALLOC_CONF", "expandable_segments:True", True),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512, expandable_segments:true", True),
        ("PYTORCH_ALLOC_CONF", "expandable_segments:False", False),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:512", False),
        ("PYTORCH_ALLOC_CONF", "", True),
    ],
)
def test_the_users_settings_take_precedence(
    no_settings: None, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: bool
) -> None:
    monkeypatch.setenv(name, text)
    assert this_allocator().expandable == expected


@pytest.mark.parametrize(("platform", "expected"), [("linux", True), ("win32", False)])
def test_only_linux_has_expandable_segments(
    no_settings: None, monkeypatch: pytest.MonkeyPatch, platform: str, expected: bool
) -> None:
    monkeypatch.setattr(allocator.sys, "platform", platform)
    assert this_allocator().expandable == expected


def test_wsl_has_none(no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "release", lambda: "6.6.87.2-microsoft-standard-WSL2")
    assert not this_allocator().expandable


@pytest.mark.parametrize(
    ("version", "expected"), [("2.11.0", False), ("2.12.1+cu130", False), ("2.13.0+cpu", True), ("2.14.0a0", True)]
)
def test_page_locked_memory_takes_its_own_size_from_torch_2_13_on(
    no_settings: None, monkeypatch: pytest.MonkeyPatch, version: str, expected: bool
) -> None:
    monkeypatch.setattr(allocator.importlib.metadata, "version", lambda name: version)
    assert this_allocator().exact_pinned == expected


def test_settings_of_the_user_without_page_locked_memory_round_it_up(
    no_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocator.importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    assert this_allocator() == Allocator(expandable=True, exact_pinned=False)
