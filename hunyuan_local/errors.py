"""Every error that this package raises on purpose.

    HunyuanLocalError            exit code
    |- InvalidRequestError       2   a field of a request is not allowed
    |- ConfigError               2   unknown model or profile, bad YAML, bad option
    |- OutputExistsError         2   the output file is there and may not be replaced
    |- ModelLoadError            3   weights missing, unreadable or not what they should be
    |  `- TokenizerMismatchError 3   a tokenizer that would encode prompts wrongly
    |- InvalidOutputError        4   NaN, black, constant or frozen video
    |- VideoError                5   a video file cannot be written or read
    |- GpuMemoryError            6   the GPU's memory does not hold the request
    `- GenerationCancelledError  130 stopped on request

Each message names what was wrong, its value, what is allowed and the remedy, so that the command
line can print it as it stands. Knows nothing about where errors come from.
"""

from __future__ import annotations

from dataclasses import dataclass


class HunyuanLocalError(Exception):
    """Base of all errors of this package; ``exit_code`` is what the command line returns."""

    exit_code = 1


@dataclass(frozen=True)
class FieldProblem:
    """One refused field: its name, its value, and the rule with the remedy in words."""

    field: str
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.field}={_shorten(self.value)}: {self.rule}"


class InvalidRequestError(HunyuanLocalError):
    """One or more fields of a request are not allowed; see ``problems``."""

    exit_code = 2

    def __init__(self, problems: list[FieldProblem]):
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


class ConfigError(HunyuanLocalError):
    """A configuration, a model name, a profile or an option cannot be used."""

    exit_code = 2


class OutputExistsError(HunyuanLocalError):
    """The output file exists and overwriting was not asked for."""

    exit_code = 2


class ModelLoadError(HunyuanLocalError):
    """A checkpoint is missing, incomplete, or of other classes than the pipeline needs."""

    exit_code = 3


class TokenizerMismatchError(ModelLoadError):
    """A loaded tokenizer encodes text differently from the checkpoint's own ``tokenizer.json``."""


class InvalidOutputError(HunyuanLocalError):
    """The model produced NaN, or a video that is black, constant or frozen; no file was kept."""

    exit_code = 4


class VideoError(HunyuanLocalError):
    """A video file cannot be written, read, or lacks what was asked of it."""

    exit_code = 5


class GpuMemoryError(HunyuanLocalError):
    """The GPU ran out of memory; no file was kept."""

    exit_code = 6


class GenerationCancelledError(HunyuanLocalError):
    """The generation was stopped on request; no file was kept."""

    exit_code = 130


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
