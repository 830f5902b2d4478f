"""Entry point: the group of commands, and the one border where errors become exit codes.

A command is imported when it is used, and torch when that needs it, so that ``--help`` is quick.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

import rich_click as click
from click.exceptions import Exit

from ..errors import ConfigError, HunyuanLocalError, TerminationRequest
from ..pipeline.quiet import hide_import_noise

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
_EPILOG = (
    "Exit codes: 0 done; 1 a replay differs, the doctor found a fault, or an unexpected error; 2 bad input; "
    "3 the model cannot be loaded; "
    "4 the video came out invalid; 5 a video file cannot be written or read; 6 GPU memory; of a hosted service: "
    "7 the key, 8 too many requests, 9 refused, 10 the task failed, 11 the time limit, 12 not reachable, 13 an answer "
    "that is not understood, 14 the download, 15 the answer to a submission was lost; of a job store: "
    "16 it cannot be used, 17 too many jobs wait; of a batch: 18 videos are missing; "
    "20 one of several processes that make a video together has died; 21 not all runs of a bench succeeded; "
    "22 the prompt could not be rewritten; 23 a checker has flagged the video, which is withheld; "
    "130 cancelled."
)


class _LazyGroup(click.RichGroup):
    """Lists commands by their summaries, and imports a command's module when the command is used."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from ..config.places import settle_libraries  # not for --help

        name, listed, rest = super().resolve_command(ctx, args)
        settle_libraries()
        return name, listed and importlib.import_module(f".commands.{name}", __package__).command, rest


@click.group(
    cls=_LazyGroup,
    commands={name: click.Command(name, help=summary) for name, summary in _SUMMARIES.items()},
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="hunyuan-local")
def group() -> None:
    """HunyuanVideo on your own machines."""


def main() -> None:
    """Run the command line and exit with a documented code; no traceback reaches a user."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    hide_import_noise()
    try:
        _refuse_stripped_python()
        sys.exit(group.main(standalone_mode=False) or 0)
    except Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("cancelled; no file was kept")
        sys.exit(130)
    except HunyuanLocalError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output left, such as `| head`: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("HUNYUAN_LOCAL_DEBUG"):
            raise
        _say(
            f"unexpected {type(error).__name__}: {error}; set HUNYUAN_LOCAL_DEBUG=1 for the traceback and report it "
            "with the output of 'hunyuan-local doctor'"
        )
        sys.exit(1)


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
