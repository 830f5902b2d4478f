"""No home folder, account or temporary folder: optional features are skipped, required ones are named in an error."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.config import load_model_config
from hunyuan_local.config.places import (
    cache_dir,
    default_data_dir,
    known_state_dir,
    message_file,
    settle_libraries,
    state_dir,
    temporary_folder,
    why_no_temporary_files,
    why_not_writable,
)
from hunyuan_local.errors import ConfigError
from hunyuan_local.weights.hub import Hub
from hunyuan_local.weights.licence import is_accepted


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as a user without an account and without HOME."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    names = ("STATE", "CACHE", "DATA")
    for name in ("HOME", "USER", *(f"XDG_{name}_HOME" for name in names), *(f"HUNYUAN_LOCAL_{n}_DIR" for n in names)):
        monkeypatch.delenv(name, raising=False)
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.fixture
def without_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no-such-folder")


@pytest.mark.parametrize(
    ("find", "variable"),
    [
        (state_dir, "HUNYUAN_LOCAL_STATE_DIR"),
        (cache_dir, "HUNYUAN_LOCAL_CACHE_DIR"),
        (default_data_dir, "HUNYUAN_LOCAL_DATA_DIR"),
    ],
)
def test_what_is_needed_names_the_variable_to_set(
    find: object, variable: str, homeless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=rf"HOME is not set.*set {variable}"):
        find()
    monkeypatch.setenv(variable, "/somewhere")
    assert find() == Path("/somewhere")


def test_without_a_home_nothing_is_remembered_and_nothing_fails(homeless: None) -> None:
    licence = load_model_config("hunyuan-video").licence
    assert (known_state_dir(), is_accepted(licence), OpenTasks().jobs()) == (None, False, [])


def test_a_paid_task_is_not_begun_where_it_cannot_be_remembered(homeless: None) -> None:
    with pytest.raises(ConfigError, match="HUNYUAN_LOCAL_STATE_DIR"), OpenTasks().alone():
        pass


def test_a_download_without_a_home_names_hf_home() -> None:
    with pytest.raises(ConfigError, match=r"model='a/b': cannot be downloaded.*set HF_HOME"):
        Hub("http://127.0.0.1:1", Path("~/.cache/huggingface/hub")).check_download("model='a/b'")


def test_libraries_get_a_user_and_folders(homeless: None) -> None:
    settle_libraries()
    assert os.environ["USER"] == f"uid{os.getuid()}"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(tempfile.gettempdir())


def test_what_the_environment_names_for_libraries_stays(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", "/mine")
    settle_libraries()
    assert os.environ["MPLCONFIGDIR"] == "/mine"


def test_what_a_program_says_is_kept_in_memory_where_there_are_no_temporary_files(
    without_temporary_files: None,
) -> None:
    with message_file() as file:
        file.write(b"said")
        file.seek(0)
        assert file.read() == b"said"


def test_a_folder_for_temporary_files_that_is_needed_names_tmpdir(without_temporary_files: None) -> None:
    with pytest.raises(ConfigError, match="set TMPDIR"), temporary_folder("hunyuan-local-x-"):
        pass
    assert "set TMPDIR" in why_no_temporary_files()


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert why_not_writable(tmp_path / "a" / "b") == ""
    assert why_not_writable(tmp_path / "file" / "b") == f"{tmp_path / 'file'} is not a folder"


def test_python_without_docstrings_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hunyuan_local.cli.main import main

    class Flags:
        optimize = 2

    monkeypatch.setattr(sys, "flags", Flags)
    monkeypatch.setattr(sys, "argv", ["hunyuan-local", "serve"])
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, "PYTHONOPTIMIZE='2'" in capsys.readouterr().err) == (2, True)
