"""Completion of commands, options and names in bash, zsh and fish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from hunyuan_local.cli.main import group

SHELLS = ("bash", "zsh", "fish")


def completion(shell: str) -> ShellComplete:
    found = get_completion_class(shell)
    assert found is not None
    return found(group, {}, "hunyuan-local", "_HUNYUAN_LOCAL_COMPLETE")


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ([], "gen", ["generate"]),
        (["generate", "a fox"], "--num", ["--num-frames", "--num-inference-steps"]),
        (["generate", "--model"], "t", ["tiny"]),
        (["generate", "--profile"], "au", ["auto"]),
        (["generate", "--cache"], "magcache-c", ["magcache-conservative"]),
        (["generate", "--backend"], "w", ["wavespeed"]),
        (["generate", "--rewrite"], "m", ["master"]),
        (["jobs"], "pr", ["prune"]),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_what_was_begun_is_completed(shell: str, words: list[str], begun: str, offered: list[str]) -> None:
    assert [item.value for item in completion(shell).get_completions(words, begun)] == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_asks_the_program(starts_process: None, shell: str) -> None:
    script = completion(shell).source()
    assert f"_HUNYUAN_LOCAL_COMPLETE={shell}_complete" in script and "hunyuan-local" in script


def test_bash_completes_with_it(starts_process: None, tmp_path: Path) -> None:
    program = Path(sys.executable).parent
    script = (
        'eval "$(_HUNYUAN_LOCAL_COMPLETE=bash_source hunyuan-local)"\n'
        "COMP_WORDS=(hunyuan-local gen) COMP_CWORD=1\n"
        '_hunyuan_local_completion hunyuan-local\necho "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {"PATH": f"{program}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.stdout.split(), done.returncode) == (["generate"], 0), done.stderr
