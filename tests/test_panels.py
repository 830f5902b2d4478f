"""The titled groups of options in ``--help``."""

from __future__ import annotations

import importlib
from typing import Any

import click
import pytest

from hunyuan_local.cli.main import group
from hunyuan_local.cli.shared.panels import COMMANDS, PANELS, arrange


def command_of(name: str) -> Any:
    found = importlib.import_module(f"hunyuan_local.cli.commands.{name}").command
    arrange(found)
    return found


def options_of(command: click.Command) -> set[str]:
    return {p.opts[0] for p in command.params if isinstance(p, click.Option) and not p.hidden}


@pytest.mark.parametrize("name", sorted(group.commands))
def test_every_option_of_a_command_with_many_is_in_one_panel(name: str) -> None:
    command = command_of(name)
    shown = [option for panel in command.panels for option in panel.options]
    assert len(set(shown)) == len(shown)
    assert not command.panels or options_of(command) == set(shown)


def test_every_option_that_a_panel_names_belongs_to_a_command() -> None:
    known = set().union(*(options_of(command_of(name)) for name in group.commands))
    assert {option for options in PANELS.values() for option in options} - known == set()


def test_generate_shows_the_video_first() -> None:
    titles = [panel.name for panel in command_of("generate").panels]
    assert titles == [
        "Video", "Model and device", "Output", "Speed", "Prompt rewriting", "Safety", "Hosted service",
        "Interrupted runs", "Several GPUs",
    ]  # fmt: skip


def test_every_command_is_in_one_panel() -> None:
    assert sorted(name for names in COMMANDS.values() for name in names) == sorted(group.commands)
