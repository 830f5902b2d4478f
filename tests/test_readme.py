"""Every example of the README runs as printed; those that need a GPU or the network are marked there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import run_here

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line
    for kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    if line.startswith(("hunyuan-local", "printf"))  # printf makes a file for the command below it
]
SCRIPTS = [
    line.split()[0] for kind, block in BLOCKS if kind == "bash" for line in block.splitlines() if "scripts/" in line
]


def test_the_two_commands_stand_first() -> None:
    kind, block = BLOCKS[0]
    assert kind == "bash"
    assert [line.split()[0] for line in block.splitlines() if line.startswith("scripts/")] == [
        "scripts/demo",
        "scripts/test",
    ]


@pytest.mark.parametrize("script", sorted(set(SCRIPTS)))
def test_every_named_script_exists(script: str) -> None:
    assert (ROOT / script).is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


def test_the_commands_run_one_after_the_other(folder: Path) -> None:
    assert COMMANDS
    for command in COMMANDS:
        if command.startswith("printf"):
            subprocess.run(["bash", "-c", command], cwd=folder, check=True)
            continue
        arguments = shlex.split(command, comments=True)[1:]
        result = run_here(*arguments, cwd=folder, HUNYUAN_LOCAL_STATE_DIR=str(folder / "state"))
        assert result.returncode == 0, f"{command}\n{result.stderr}"


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_every_python_example_runs(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_every_local_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
