"""Entry point: the group of commands, and the one border where errors become exit codes.

A command is imported when it is used, and torch when that needs it, so that ``--help`` is quick.
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

from ..ending import on_ending
from ..errors import ConfigError, HunyuanLocalError, TerminationRequest
from ..exit_codes import ExitCode
from ..pipeline.quiet import hide_import_noise
from ..streams import announce, flush_stdout, prepare_streams, silence
from .shared.panels import arrange, arrange_commands

# The first paragraph of each command's own help, which a list shows without importing the command.
_SUMMARIES = {
    "batch": "Make a video of every line of FILE; - is standard input.",
    "bench": "Measure backends with the same requests, and write a report.",
    "doctor": "Look at Python, the libraries, GPUs, tokenizers, weights and ffmpeg.",
    "download": "Fetch a model into the Hub's cache, and print its folder; afterwards no network is needed.",
    "explain": "Say what each backend would do with this request: take it, adjust it, or refuse it.",
    "generate": "Make a video from PROMPT.",
    "jobs": "See, cancel, retry and delete the jobs of a server or of workers.",
    "models": (
        "List the models: those known by name, HunyuanVideo checkpoints in the Hub's cache, and those in each DIR."
    ),
    "plan": "Weigh every way to run the model: memory of each stage, time, and which of them fit.",
    "replay": "Make FILE again from what it says of itself, and say whether the frames are identical.",
    "resume": "Wait for the task of JOB and fetch its video; nothing is submitted.",
    "serve": "Serve WaveSpeed's, Novita's and OpenAI's video formats, with the work done by workers of its own.",
    "show": "Print how FILE was made, as JSON.",
    "smoke": "Load the model, make two steps at the smallest size, decode, encode and check the file.",
    "ui": "Open a page in the browser to make videos with, served from this machine.",
    "worker": "Take jobs from the store of a server, or of other workers, until Ctrl-C or SIGTERM.",
}
_EPILOG = "Exit codes: " + "; ".join(f"{code:d} {code.meaning}" for code in ExitCode) + "."


# The libraries of these take seconds to import, on a slow disk half a minute.
_SLOW_TO_BEGIN = {"batch", "bench", "generate", "replay", "serve", "smoke", "ui", "worker"}
_ANSWERED_AT_ONCE = {"-h", "--help", "--list-backends", "--options-from-parent"}


class _LazyGroup(click.RichGroup):
    """Lists commands by their summaries, and imports a command's module when the command is used."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..config.places import settle_libraries  # not for --help

        name, listed, rest = super().resolve_command(ctx, args)
        if listed is None:
            return name, None, rest
        if name in _SLOW_TO_BEGIN and not _ANSWERED_AT_ONCE.intersection(rest) and rest[:1] != ["compare"]:
            announce("loading the libraries")
        settle_libraries()
        command: click.Command = importlib.import_module(f".commands.{name}", __package__).command
        arrange(command)
        return name, command, rest


@click.group(
    cls=_LazyGroup,
    commands={name: click.Command(name, help=summary) for name, summary in _SUMMARIES.items()},
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="hunyuan-local")
def group() -> None:
    """HunyuanVideo on your own machines."""


arrange_commands(group)


def main() -> None:
    """Run the command line and exit with a documented code; no traceback reaches a user."""
    prepare_streams()
    logging.raiseExceptions = False  # a log that cannot be written is no reason to end, nor for a traceback
    on_ending(_as_interrupt)
    hide_import_noise()
    try:
        _refuse_stripped_python()
        code = group.main(standalone_mode=False) or 0
        flush_stdout()  # at the end of the process it would be too late for an error
        sys.exit(code)
    except Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.BAD_INPUT)
    except (KeyboardInterrupt, click.Abort):
        _say("cancelled; no file was kept")
        sys.exit(ExitCode.CANCELLED)
    except HunyuanLocalError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output left, such as `| head`: nothing is left to say.
        silence(sys.stdout)
        sys.exit(ExitCode.FAILED)
    except Exception as error:
        _end_unexpected(error)


def _end_unexpected(error: Exception) -> NoReturn:
    if os.environ.get("HUNYUAN_LOCAL_DEBUG"):
        raise error
    _say(
        f"unexpected {type(error).__name__}: {error}; set HUNYUAN_LOCAL_DEBUG=1 for the traceback and report it "
        "with the output of 'hunyuan-local doctor'"
    )
    sys.exit(ExitCode.FAILED)


def _refuse_stripped_python() -> None:
    """Refuse a Python that drops docstrings: torch and transformers build code and texts from theirs.

    Raises:
        ConfigError: always there; at the start, since models would fail to load later.
    """
    if sys.flags.optimize >= 2:
        value = os.environ.get("PYTHONOPTIMIZE")
        how = f"PYTHONOPTIMIZE={value!r}" if value else "python -OO"
        raise ConfigError(
            f"{how}: Python without docstrings cannot run the libraries of the model; unset it, or use PYTHONOPTIMIZE=1"
        )


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise TerminationRequest
