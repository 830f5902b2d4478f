"""The built wheel in a separate environment, the public names, and the cost of an import."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import hunyuan_local

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
MAX_CHECKPOINT_BYTES = 24_000_000
HEAVY = ("torch", "diffusers", "transformers")


@pytest.fixture(scope="session")
def wheel_files(wheel: Path) -> dict[str, int]:
    """Name and size in bytes of each file in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


@pytest.fixture(scope="session")
def clean_venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and the dependencies of the running environment."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True)
    # The lines of a .pth file come after the environment's own packages, and .pth files in the
    # folders they name are not read: the editable installation of the repository is not visible.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (_site_packages(folder) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return folder


def _site_packages(venv: Path) -> Path:
    (path,) = venv.glob("lib/python*/site-packages")
    return path


def _run_cleanly(arguments: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)


def test_wheel_holds_what_the_package_needs(wheel_files: dict[str, int]) -> None:
    sources = {path.relative_to(ROOT) for path in ROOT.glob("hunyuan_local/**/*.py")}
    configs = {Path("hunyuan_local") / path.relative_to(ROOT) for path in ROOT.glob("configs/**/*.yaml")}
    assert configs
    needed = sources | configs | {Path("hunyuan_local/py.typed"), Path("hunyuan_local/assets/tiny/model_index.json")}
    assert {path.as_posix() for path in needed} <= set(wheel_files)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_files)


def test_wheel_holds_nothing_else(wheel_files: dict[str, int]) -> None:
    folders = {name.split("/")[0] for name in wheel_files}
    assert folders == {"hunyuan_local", f"hunyuan_local-{VERSION}.dist-info"}
    assert not [name for name in wheel_files if "__pycache__" in name]


def test_wheel_holds_the_whole_checkpoint_and_it_is_small(wheel_files: dict[str, int]) -> None:
    checkpoint = {name: size for name, size in wheel_files.items() if name.startswith("hunyuan_local/assets/")}
    on_disk = {
        path.relative_to(ROOT).as_posix(): path.stat().st_size
        for path in ROOT.glob("hunyuan_local/assets/**/*")
        if path.is_file()
    }
    assert checkpoint == on_disk
    assert any(name.endswith(".safetensors") for name in checkpoint)
    assert sum(checkpoint.values()) < MAX_CHECKPOINT_BYTES


def test_clean_venv_imports_the_wheel(clean_venv: Path, tmp_path: Path) -> None:
    code = "import hunyuan_local, importlib.metadata as m; print(hunyuan_local.__file__, m.version('hunyuan-local'))"
    result = _run_cleanly([clean_venv / "bin" / "python", "-c", code], tmp_path)
    assert result.returncode == 0, result.stderr
    file, version = result.stdout.split()
    assert Path(file) == _site_packages(clean_venv) / "hunyuan_local" / "__init__.py"
    assert version == VERSION


def test_clean_venv_has_the_command(clean_venv: Path, tmp_path: Path) -> None:
    result = _run_cleanly([clean_venv / "bin" / "hunyuan-local", "--version"], tmp_path)
    assert result.returncode == 0, result.stderr
    assert VERSION in result.stdout


def test_public_names_are_sorted_and_can_be_imported() -> None:
    assert hunyuan_local.__all__ == sorted(hunyuan_local.__all__)
    for name in hunyuan_local.__all__:
        assert getattr(importlib.import_module("hunyuan_local"), name) is not None
    assert set(hunyuan_local.__all__) <= set(dir(hunyuan_local))


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize(
    "statement",
    [
        "import hunyuan_local",
        "from hunyuan_local.cli.main import main; sys.argv[1:] = ['--help']; sys.exit(main())",
        "from hunyuan_local.cli.main import main; sys.argv[1:] = ['generate', '--help']; sys.exit(main())",
    ],
)
def test_nothing_heavy_is_loaded(statement: str, tmp_path: Path) -> None:
    code = f"import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); {statement}"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    last = result.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED"
    assert "hunyuan_local" in last
    assert not set(HEAVY) & set(last)
