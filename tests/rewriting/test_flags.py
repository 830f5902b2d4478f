"""Options of rewriting and of the safety check: parsed, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from command_line import run_here

from hunyuan_local.cli.shared.rewriting_and_safety import guard_options, rewriting_from, safety_from
from hunyuan_local.config import RewriteConfig, SafetyConfig
from hunyuan_local.errors import ConfigError


def parsed(*arguments: str) -> tuple[RewriteConfig, SafetyConfig]:
    """The options that a command with these flags receives."""
    found: dict[str, Any] = {}

    @click.command()
    @guard_options
    def command(**flags: Any) -> None:
        found.update(flags)

    command.main(list(arguments), standalone_mode=False)
    return rewriting_from(found), safety_from(found)


def test_without_flags_nothing_is_changed() -> None:
    assert parsed() == (RewriteConfig(), SafetyConfig())


def test_the_safety_check_is_off_by_default() -> None:
    assert SafetyConfig().mode == "off"


@pytest.mark.parametrize(
    ("flag", "config", "field", "value"),
    [
        ("--rewrite-model", RewriteConfig, "model_id", "someone/model"),
        ("--rewrite-revision", RewriteConfig, "revision", "refs/pr/1"),
        ("--rewrite-endpoint", RewriteConfig, "endpoint", "http://127.0.0.1:8080/v1"),
        ("--rewrite-timeout", RewriteConfig, "timeout_s", 7.0),
        ("--rewrite-failure", RewriteConfig, "on_failure", "use-original"),
        ("--safety", SafetyConfig, "mode", "block"),
        ("--safety-model", SafetyConfig, "model_id", "someone/classifier"),
        ("--safety-revision", SafetyConfig, "revision", "refs/pr/2"),
        ("--safety-label", SafetyConfig, "labels", ("red",)),
        ("--safety-threshold", SafetyConfig, "threshold", 0.25),
        ("--safety-frames", SafetyConfig, "frames", 3),
    ],
)
def test_each_flag_fills_its_field(flag: str, config: type, field: str, value: Any) -> None:
    given = value[0] if isinstance(value, tuple) else value
    on = ("--safety", "flag") if config is SafetyConfig else ()
    rewriting, safety = parsed(*on, flag, str(given))
    assert getattr(rewriting if config is RewriteConfig else safety, field) == value


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--rewrite-timeout", "nan"), "rewrite_timeout=nan: input should be"),
        (("--safety", "flag", "--safety-threshold", "nan"), "safety_threshold=nan: input should be"),
        (("--safety-threshold", "0.3"), "safety_threshold=0.3: has no effect without --safety flag"),
        (("--rewrite-timeout", "0"), "rewrite_timeout=0.0: input should be greater than 0"),
        (
            ("--safety", "flag", "--safety-threshold", "1.5"),
            "safety_threshold=1.5: input should be less than or equal to 1",
        ),
        (("--safety", "flag", "--safety-frames", "0"), "safety_frames=0: input should be greater than or equal to 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_its_flag(flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parsed(*flags)


@pytest.mark.usefixtures("starts_process")
def test_a_prompt_is_rewritten_from_the_command_line(scribe: Path, tmp_path: Path) -> None:
    done = run_here(
        "generate", "a red circle moving right on a black background", "--model", "tiny", "--profile", "cpu",
        "--size", "144x80", "--num-frames", "5", "--num-inference-steps", "1", "--rewrite", "normal",
        "--rewrite-model", scribe, "--output", "clip.mp4", "--json", cwd=tmp_path,
    )  # fmt: skip
    request = json.loads(done.stdout.splitlines()[-1])["request"]
    assert request["prompt"] == "a red circle moves to the right on a black background"


def test_a_prompt_that_cannot_be_rewritten_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    done = run_here(
        "generate", "a fox", "--model", "tiny", "--profile", "cpu", "--rewrite", "normal", "--rewrite-endpoint",
        "http://127.0.0.1:9/v1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 22
    assert "check --rewrite-endpoint" in done.stderr and "--rewrite-failure use-original" in done.stderr


def test_a_rewriter_without_a_rewriting_is_refused(tmp_path: Path) -> None:
    done = run_here("generate", "a fox", "--rewrite-endpoint", "http://127.0.0.1:9/v1", cwd=tmp_path)
    assert done.returncode == 2
    assert "has no effect without --rewrite normal or --rewrite master" in done.stderr
