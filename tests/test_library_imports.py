"""Garbage collections while libraries are imported, and after that."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from command_line import run_here

from hunyuan_local.pipeline.library_imports import _Process, importing, skip_libraries_in_collections


@pytest.fixture(autouse=True)
def a_process_of_a_user(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a Python process that is not one of our programs and has not imported a library."""
    monkeypatch.setattr(_Process, "is_program", False)
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    gc.unfreeze()  # so that there is something to freeze
    yield
    gc.freeze()  # as after the collection of the tests


def test_nothing_is_collected_inside() -> None:
    with importing():
        assert not gc.isenabled()


def test_collections_go_on_afterwards() -> None:
    with importing():
        pass
    assert gc.isenabled()


def test_collections_go_on_after_a_failed_import() -> None:
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_a_block_inside_another_does_not_end_the_pause() -> None:
    with importing():
        with importing():
            pass
        assert not gc.isenabled()


def test_collections_stay_off_where_they_were_off() -> None:
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_collections_of_a_program_skip_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_libraries_in_collections()
    with importing():
        monkeypatch.setitem(sys.modules, "diffusers", ModuleType("diffusers"))
    assert gc.get_freeze_count() > 0


def test_collections_of_a_program_do_not_skip_what_is_created_later() -> None:
    skip_libraries_in_collections()
    with importing():  # a library that is imported already
        pass
    assert gc.get_freeze_count() == 0


def test_collections_of_a_users_process_skip_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with importing():
        monkeypatch.setitem(sys.modules, "diffusers", ModuleType("diffusers"))
    assert gc.get_freeze_count() == 0


def test_the_command_line_is_a_program(tmp_path: Path) -> None:
    run_here("--help", cwd=tmp_path)
    assert _Process.is_program
