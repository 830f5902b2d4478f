"""All errors that this package raises deliberately::

    HunyuanLocalError            exit code
    |- InvalidRequestError       2   a field of a request is not allowed
    |  `- RequestLossError       2   a target does not support a field, and losses were not permitted
    |- ConfigError               2   unknown model or profile, bad YAML, bad option
    |- OutputExistsError         2   the output file exists and may not be overwritten
    |- ModelLoadError            3   weights are missing, unreadable or not the expected ones
    |  |- UnknownModelError      2   the model is not on this machine, and the Hub cannot be queried
    |  `- TokenizerMismatchError 3   the tokenizer would encode prompts incorrectly
    |- InvalidOutputError        4   NaN, black, constant or frozen video
    |- VideoError                5   a video file cannot be written or read
    |- GpuMemoryError            6   the request does not fit into GPU memory or main memory
    |- HostedError               7   base of the errors of hosted services:
    |  |- AuthenticationError    7   the API key is missing or refused
    |  |- RateLimitError         8   too many requests; states how long to wait
    |  |- RequestRefusedError    9   the service refuses the request; quotes its message
    |  |- TaskFailedError        10  the task was accepted and failed
    |  |- TaskTimeoutError       11  the task did not finish within the time limit; can be resumed
    |  |- UnreachableError       12  no connection, or the service is down
    |  |- InvalidAnswerError     13  a response does not match the service's documentation
    |  |- DownloadError          14  the finished video cannot be downloaded or is incomplete
    |  `- SubmissionLostError    15  the response to a submission was lost; a task may exist and be billed
    |- StoreError                16  the job store is damaged or cannot be written
    |- QueueFullError            17  too many jobs are queued
    |- BatchIncompleteError      18  videos of a finished batch are missing
    |- SpendingLimitError        19  another hosted video would exceed the spending limit
    |- RankFailedError           20  a process of a multi-GPU generation died or failed
    |- BenchIncompleteError      21  runs of a finished bench failed
    |- RewriteError              22  a prompt could not be rewritten
    |- ContentBlockedError       23  the safety check flagged the video, which is withheld
    |- UncheckedVideoError       23  a paid video could not be checked and is kept unpublished
    |- ReportError               24  the output, or a report of finished work, cannot be written
    `- GenerationCancelledError  130 stopped on request

Each message states what was wrong, its value, what is allowed and the remedy, so that the command line can print it
unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .exit_codes import ExitCode


class HunyuanLocalError(Exception):
    """Base of all errors of this package; ``exit_code`` is the exit code of the command line.

    ``hint`` explains how to resume unfinished work, or why it could not be saved.
    """

    exit_code: ExitCode = ExitCode.FAILED
    hint = ""

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.hint}" if self.hint else super().__str__()

    def __reduce__(self) -> tuple[object, ...]:
        """Copy text and fields without ``__init__``, which by default would receive the text as its argument."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[HunyuanLocalError], args: tuple[object, ...]) -> HunyuanLocalError:
    """Create an error without calling ``__init__``; ``copy`` and ``pickle`` then set its fields."""
    return kind.__new__(kind, *args)


class TerminationRequest(KeyboardInterrupt):
    """The system or a closed terminal ends this process, not the user: keep unfinished work for later."""


@dataclass(frozen=True)
class FieldProblem:
    """One refused field: its name, its value, and the rule with the remedy."""

    field: str
    value: object
    rule: str

    def __str__(self) -> str:
        return f"{self.field}={_shorten(self.value)}: {self.rule}"


class InvalidRequestError(HunyuanLocalError):
    """One or more fields of a request are not allowed; see ``problems``."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, problems: list[FieldProblem]):
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


@dataclass(frozen=True)
class Loss(FieldProblem):
    """A field value that a target does not support.

    ``becomes`` is the replacement if the caller permits losses (None: the target's own value). If ``permissible`` is
    false, no replacement would keep the meaning, and the request is always refused.
    """

    becomes: object = None
    permissible: bool = True

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.remedy}"

    @property
    def remedy(self) -> str:
        """What happens if losses are permitted, or what to do instead."""
        if not self.permissible:
            return "change it, or use another backend"
        return f"with --allow-loss (allow_loss=True) it is {self.fate}"

    @property
    def fate(self) -> str:
        """What happens to the field if losses are permitted."""
        return "omitted" if self.becomes is None else f"changed to {self.becomes}"

    @property
    def note(self) -> str:
        """The note for a permitted loss."""
        return f"{self.field}={self.value!r} was {self.fate}: {self.rule}"


class RequestLossError(InvalidRequestError):
    """A target does not support the request; ``losses`` lists each field."""

    def __init__(self, losses: list[Loss]):
        self.losses = losses
        super().__init__(list(losses))


class ConfigError(HunyuanLocalError):
    """A configuration, model name, profile or option cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class OutputExistsError(HunyuanLocalError):
    """The output file exists and overwriting was not requested."""

    exit_code = ExitCode.BAD_INPUT


class ModelLoadError(HunyuanLocalError):
    """A checkpoint is missing or incomplete, or has other classes than the pipeline needs."""

    exit_code = ExitCode.MODEL_NOT_LOADED


class UnknownModelError(ModelLoadError):
    """A model is not on this machine, and the Hub cannot be queried for it."""

    exit_code = ExitCode.BAD_INPUT


class TokenizerMismatchError(ModelLoadError):
    """A loaded tokenizer encodes text differently from the checkpoint's ``tokenizer.json``."""


class InvalidOutputError(HunyuanLocalError):
    """The model produced NaN, or a video that is black, constant or frozen; no file was kept."""

    exit_code = ExitCode.INVALID_OUTPUT


class VideoError(HunyuanLocalError):
    """A video file cannot be written or read, or lacks the requested content.

    ``cause`` is the message of ffmpeg or the system if there is one, without file name and remedy.
    """

    exit_code = ExitCode.VIDEO_FILE

    def __init__(self, message: str, cause: str = ""):
        super().__init__(message)
        self.cause = cause


class GpuMemoryError(HunyuanLocalError):
    """The request does not fit into GPU memory or main memory; no file was kept.

    If memory ran out during generation, ``stage`` is the stage and ``peak_bytes`` the peak allocation until then.
    """

    exit_code = ExitCode.GPU_MEMORY

    def __init__(self, message: str, stage: str | None = None, peak_bytes: int | None = None):
        self.stage, self.peak_bytes = stage, peak_bytes
        super().__init__(message)


class RewriteError(HunyuanLocalError):
    """The language model did not rewrite the prompt in time, or its output cannot be used.

    Args:
        may_pass: whether a retry may succeed, for example because the server was unreachable.
    """

    exit_code = ExitCode.NOT_REWRITTEN

    def __init__(self, message: str, may_pass: bool = False):
        super().__init__(message)
        self.may_pass = may_pass


class ContentBlockedError(HunyuanLocalError):
    """The safety check flagged the video, and it is withheld.

    Args:
        verdict: the :class:`hunyuan_local.schema.SafetyVerdict`.
    """

    exit_code = ExitCode.CONTENT_BLOCKED

    def __init__(self, message: str, verdict: object = None):
        super().__init__(message)
        self.verdict = verdict


class UncheckedVideoError(HunyuanLocalError):
    """A paid video could not be checked and is therefore not published; it is kept at ``path``."""

    exit_code = ExitCode.CONTENT_BLOCKED

    def __init__(self, message: str, path: Path | None = None):
        super().__init__(message)
        self.path = path


class GenerationCancelledError(HunyuanLocalError):
    """The generation was cancelled; no file was kept."""

    exit_code = ExitCode.CANCELLED


class HostedError(HunyuanLocalError):
    """Base of the errors of hosted services; each kind has its own class and exit code."""

    exit_code = ExitCode.AUTHENTICATION


class AuthenticationError(HostedError):
    """The API key is missing, or the service refuses it."""


class RateLimitError(HostedError):
    """Too many requests; ``retry_after_s`` is the wait that the service requests, if it states one."""

    exit_code = ExitCode.RATE_LIMIT

    def __init__(self, message: str, retry_after_s: float | None = None):
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RequestRefusedError(HostedError):
    """The service refused the request; the message quotes its reason."""

    exit_code = ExitCode.REFUSED


class TaskFailedError(HostedError):
    """The service accepted the task and could not finish it; the message quotes its reason."""

    exit_code = ExitCode.TASK_FAILED


class TaskTimeoutError(HostedError):
    """The task did not finish within the time limit; it continues at the service and can be resumed."""

    exit_code = ExitCode.TASK_TIMEOUT


class UnreachableError(HostedError):
    """The service cannot be reached, or responds with server errors."""

    exit_code = ExitCode.UNREACHABLE


class InvalidAnswerError(HostedError):
    """A response cannot be understood: not JSON, a missing field, or an unknown status."""

    exit_code = ExitCode.INVALID_ANSWER


class DownloadError(HostedError):
    """The finished video cannot be downloaded, or is not a complete mp4; no file was kept."""

    exit_code = ExitCode.DOWNLOAD


class SubmissionLostError(HostedError):
    """The response to a submission was lost: the service may have created, and billed, a task."""

    exit_code = ExitCode.SUBMISSION_LOST


class StoreError(HunyuanLocalError):
    """The job store is damaged, has a newer version, or cannot be written; it is left unchanged."""

    exit_code = ExitCode.STORE


class QueueFullError(HunyuanLocalError):
    """The queue is full; no more jobs are accepted."""

    exit_code = ExitCode.QUEUE_FULL


def _shorten(value: object, limit: int = 60) -> str:
    if isinstance(value, str | bytes | bytearray):
        value = value[: limit + 1]  # may be an image of many megabytes
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class BatchIncompleteError(HunyuanLocalError):
    """A batch has finished with missing videos; the message counts them."""

    exit_code = ExitCode.BATCH_INCOMPLETE


class SpendingLimitError(HunyuanLocalError):
    """Another video at a hosted service would exceed the spending limit; nothing was sent."""

    exit_code = ExitCode.SPENDING_LIMIT


class RankFailedError(HunyuanLocalError):
    """A process of a multi-GPU generation died, or failed with an unexpected error."""

    exit_code = ExitCode.RANK_FAILED


class ReportError(HunyuanLocalError):
    """Stdout or a requested report cannot be written; the message names the finished work, which is kept."""

    exit_code = ExitCode.REPORT


class BenchIncompleteError(HunyuanLocalError):
    """A bench has finished with failed runs; the message names the first failure."""

    exit_code = ExitCode.BENCH_INCOMPLETE


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the class name if the message is empty."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]
