"""Every example in the README and the documentation runs as printed; links resolve, pages are short.

Blocks fenced as ``bash`` and ``python`` run, each alone in an empty folder; those that need a GPU, a key, the network
or a server that keeps running are fenced as ``console``.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from command_line import run_here

from hunyuan_local import errors
from hunyuan_local.exit_codes import ExitCode

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Commands that only print; the others generate videos or call ffmpeg.
PRINTING = {"explain", "models", "plan", "resume", "show"}


SCRIPT = re.compile(r"scripts/\w+")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines that are run; printf writes a file for the command below it."""
        return [line for line in self.text.splitlines() if line.startswith(("hunyuan-local", "printf"))]

    @property
    def only_prints(self) -> bool:
        return {line.split()[1] for line in self.commands} <= PRINTING

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.commands[-1].split()[1:3])}" if self.commands else self.page


BLOCKS = [
    Block(page.relative_to(ROOT).as_posix(), kind, text)
    for page in PAGES
    for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
]
SHELL = [block for block in BLOCKS if block.kind == "bash" and block.commands]
PYTHON = [block for block in BLOCKS if block.kind == "python"]
LINKS = [
    (page, target)
    for page in PAGES
    for target in sorted(set(re.findall(r"\]\((?!https?:|mailto:)([^)#]+)(?:#[^)]*)?\)", page.read_text())))
]


def test_the_two_commands_stand_first_in_the_readme() -> None:
    first = BLOCKS[0]
    assert (first.page, first.kind) == ("README.md", "bash")
    scripts = [line.split()[0] for line in first.text.splitlines() if line.startswith("scripts/")]
    assert scripts == ["scripts/demo", "scripts/test"]


def test_there_are_examples_of_each_kind() -> None:
    assert {block.only_prints for block in SHELL} == {True, False} and PYTHON


@pytest.mark.parametrize(
    "script", sorted({name for block in BLOCKS for name in re.findall(r"scripts/\w+", block.text)})
)
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


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("block", [block for block in SHELL if not block.only_prints], ids=str)
def test_the_commands_of_a_block_run_one_after_the_other(block: Block, tmp_path: Path) -> None:
    run(block.commands, tmp_path)


@pytest.mark.parametrize("block", [block for block in SHELL if block.only_prints], ids=str)
def test_commands_that_only_print_run(block: Block, tmp_path: Path) -> None:
    run(block.commands, tmp_path)


@pytest.mark.usefixtures("starts_process")
@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_example_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, block.page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_every_local_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists()


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    table = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", table, re.MULTILINE)
    assert [int(code) for code, _ in rows] == sorted(ExitCode)
    named = {name: int(code) for code, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert named == {name: int(getattr(errors, name).exit_code) for name in named}
