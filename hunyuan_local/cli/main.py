"""Entry point: the command group, and the only place where errors become exit codes.

A command's module is imported when the command runs, and torch when the command needs it, so ``--help`` is fast.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from types import FrameType
from typing import NoReturn

import rich_click as click
from click.exceptions import Exit

from ..errors import ConfigError, HunyuanLocalError, TerminationRequest
from ..exit_codes import ExitCode
from ..pipeline.library_imports import importing, skip_libraries_in_collections
from ..pipeline.library_output import hide_import_noise
from ..signals import on_ending
from ..stdio import announce, flush_stdout, prepare_streams
from .shared.panels import arrange, arrange_commands

# The first paragraph of each command's docstring, for listing commands without importing them; a test compares them.
_SUMMARIES = {
    "batch": "Generate a video for each line of FILE.",
    "bench": "Benchmark backends with the same requests and write a report.",
    "doctor": "Check Python, libraries, GPUs, folders, weights, tokenizers and ffmpeg.",
    "download": "Download a model's weights and print their folder.",
    "explain": "Show whether each backend would accept, adjust or refuse a request.",
    "generate": "Generate a video from PROMPT.",
    "jobs": "List, show, cancel, retry and delete the jobs of a server or of workers.",
    "models": "List the models known by name and the checkpoints on this machine.",
    "plan": "Estimate memory and time of each mode, and show which modes fit.",
    "replay": "Generate FILE again from its provenance and compare the frames.",
    "resume": "Wait for the task of JOB at a hosted service and download its video.",
    "serve": "Start a server with the video APIs of WaveSpeed, Novita and OpenAI.",
    "show": "Print how FILE was generated, as JSON.",
    "smoke": "Generate the smallest possible video and check the file.",
    "ui": "Start a server and open its web page for generating videos.",
    "worker": "Run the jobs in a job store until Ctrl-C or SIGTERM.",
}
_EPILOG = "Exit codes: " + "; ".join(f"{code:d} {code.meaning}" for code in ExitCode) + "."


# These commands import libraries that take seconds to load, and half a minute from a slow disk.
_SLOW_IMPORTS = {"batch", "bench", "generate", "replay", "serve", "smoke", "ui", "worker"}
_QUICK_FLAGS = {"-h", "--help", "--list-backends", "--options-from-parent"}


class _LazyGroup(click.RichGroup):
    """Lists commands by their summaries and imports a command's module only when the command runs."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..config.places import settle_libraries  # not for --help

        name, listed, rest = super().resolve_command(ctx, args)
        if listed is None:
            return name, None, rest
        if name in _SLOW_IMPORTS and not _QUICK_FLAGS.intersection(rest) and rest[:1] != ["compare"]:
            announce("loading the libraries")
        settle_libraries()
        with importing():
            command: click.Command = importlib.import_module(f".commands.{name}", __package__).command
        arrange(command)
        return name, command, rest


@click.group(
    cls=_LazyGroup,
    commands={name: click.Command(name, help=summary) for name, summary in _SUMMARIES.items()},
    epilog=_EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "rich_help_config": {"text_paragraph_linebreaks": "\n\n"},
    },
)
@click.version_option(package_name="hunyuan-local")
def group() -> None:
    """HunyuanVideo on your own machines."""


arrange_commands(group)


def main() -> None:
    """Run the command line and exit with a documented code; users never see a traceback."""
    prepare_streams()
    logging.raiseExceptions = False  # a log that cannot be written must not print a traceback
    on_ending(_as_interrupt)
    hide_import_noise()
    skip_libraries_in_collections()
    try:
        _refuse_stripped_python()
        code = _run()
        flush_stdout()  # while an error can still change the exit code
        sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        _say("cancelled; no unfinished file was kept")
        sys.exit(ExitCode.CANCELLED)
    except HunyuanLocalError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        _end_unexpected(error)


def _run() -> str | int | None:
    """Run the command; return its exit code."""
    try:
        return group.main(standalone_mode=False) or 0
    except Exit as error:
        return error.exit_code
    except SystemExit as error:
        return error.code


def _end_unexpected(error: Exception) -> NoReturn:
    if os.environ.get("HUNYUAN_LOCAL_DEBUG"):
        raise error
    _say(
        f"unexpected {type(error).__name__}: {error}; set HUNYUAN_LOCAL_DEBUG=1 to see the traceback, and report it "
        "with the output of 'hunyuan-local doctor'"
    )
    sys.exit(ExitCode.FAILED)


def _refuse_stripped_python() -> None:
    """Refuse a Python without docstrings: torch and transformers generate code and texts from theirs.

    Raises:
        ConfigError: docstrings are disabled; models would fail to load later.
    """
    if sys.flags.optimize >= 2:
        value = os.environ.get("PYTHONOPTIMIZE")
        how = f"PYTHONOPTIMIZE={value!r}" if value else "python -OO"
        raise ConfigError(
            f"{how}: torch and transformers do not work without docstrings; unset it, or use PYTHONOPTIMIZE=1"
        )


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise TerminationRequest
