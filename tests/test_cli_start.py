"""What starting the command line imports, and that its list of commands matches the commands."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_here

from hunyuan_local.cli.main import group

# The modules that importing the package and printing the help may load; benchmarks/startup.py measures the start.
OF_A_HELP = {
    "hunyuan_local",
    "hunyuan_local.cli",
    "hunyuan_local.cli.main",
    "hunyuan_local.cli.shared",
    "hunyuan_local.cli.shared.panels",
    "hunyuan_local.signals",
    "hunyuan_local.errors",
    "hunyuan_local.exit_codes",
    "hunyuan_local.pipeline",
    "hunyuan_local.pipeline.library_imports",
    "hunyuan_local.pipeline.library_output",
    "hunyuan_local.stdio",
}
SLOW = {"asyncio", "fsspec", "httpx", "numpy", "pydantic", "rich.progress", "yaml"}


def loaded_by(statement: str, folder: Path) -> set[str]:
    """The modules that a new process has loaded when it ends."""
    code = f"import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); {statement}"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def loaded_by_help(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    statement = "from hunyuan_local.cli.main import main; sys.argv[1:] = ['--help']; sys.exit(main())"
    return loaded_by(statement, tmp_path_factory.mktemp("help"))


def test_the_help_loads_no_command(loaded_by_help: set[str]) -> None:
    assert {name for name in loaded_by_help if name.split(".")[0] == "hunyuan_local"} == OF_A_HELP


def test_the_help_loads_no_slow_library(loaded_by_help: set[str]) -> None:
    assert not SLOW & loaded_by_help


@pytest.mark.usefixtures("starts_process")
def test_importing_the_package_loads_nothing_else_of_it(tmp_path: Path) -> None:
    found = loaded_by("import hunyuan_local", tmp_path)
    assert {name for name in found if name.split(".")[0] == "hunyuan_local"} == {"hunyuan_local"}
    assert not (SLOW | {"click", "rich"}) & found


@pytest.mark.parametrize("name", group.commands)
def test_a_command_is_listed_with_the_first_paragraph_of_its_help(name: str) -> None:
    command = importlib.import_module(f"hunyuan_local.cli.commands.{name}").command
    assert group.commands[name].help == inspect.cleandoc(command.help).split("\n\n")[0].replace("\n", " ")


def test_every_command_of_the_folder_is_listed() -> None:
    folder = Path(__file__).resolve().parents[1] / "hunyuan_local" / "cli" / "commands"
    assert set(group.commands) == {path.stem for path in folder.glob("[!_]*.py")}


def test_a_mistyped_command_is_reported_the_nearest(tmp_path: Path) -> None:
    result = run_here("genrate", cwd=tmp_path)
    assert result.returncode == 2 and "'generate'" in result.stderr
