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
# The commands of each block with any: a block stands alone. printf makes a file for the command below it.
COMMANDS = [
    [line for line in block.splitlines() if line.startswith(("hunyuan-local", "printf"))]
    for kind, block in BLOCKS
    if kind == "bash"
]
# Those that only tell something; the others make videos, or look at ffmpeg.
TELLING = {"explain", "models", "plan", "resume", "show"}
TOLD, MADE = [], []
for lines in filter(None, COMMANDS):
    (TOLD if {line.split()[1] for line in lines} <= TELLING else MADE).append(lines)
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


def test_there_are_commands_of_both_kinds() -> None:
    assert MADE and TOLD


@pytest.mark.parametrize("script", sorted(set(SCRIPTS)))
def test_every_named_script_exists(script: str) -> None:
    assert (ROOT / script).is_file()


def run(lines: list[str], folder: Path) -> None:
    """Run commands one after the other in one folder."""
    for command in lines:
        if command.startswith("printf"):
            subprocess.run(["bash", "-c", command], cwd=folder, check=True)
            continue
        arguments = shlex.split(command, comments=True)[1:]
        result = run_here(*arguments, cwd=folder, HUNYUAN_LOCAL_STATE_DIR=str(folder / "state"))
        assert result.returncode == 0, f"{command}\n{result.stderr}"


def _first_words(lines: list[str]) -> str:
    return " ".join(lines[-1].split()[1:3])


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("lines", MADE, ids=_first_words)
def test_the_commands_of_a_block_run_one_after_the_other(lines: list[str], tmp_path: Path) -> None:
    run(lines, tmp_path)


@pytest.mark.parametrize("lines", TOLD, ids=_first_words)
def test_commands_that_only_tell_something_run(lines: list[str], tmp_path: Path) -> None:
    run(lines, tmp_path)


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_every_python_example_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_every_local_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()
