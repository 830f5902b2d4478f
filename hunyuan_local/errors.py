"""Every error that this package raises on purpose::

    HunyuanLocalError            exit code
    |- InvalidRequestError       2   a field of a request is not allowed
    |  `- RequestLossError       2   a target cannot hold a field, and a loss was not permitted
    |- ConfigError               2   unknown model or profile, bad YAML, bad option
    |- OutputExistsError         2   the output file is there and may not be replaced
    |- ModelLoadError            3   weights missing, unreadable or not what they should be
    |  |- UnknownModelError      2   nothing of that name is here, and the Hub cannot be asked
    |  `- TokenizerMismatchError 3   a tokenizer that would encode prompts wrongly
    |- InvalidOutputError        4   NaN, black, constant or frozen video
    |- VideoError                5   a video file cannot be written or read
    |- GpuMemoryError            6   the GPU's memory does not hold the request
    |- HostedError               7   a hosted service, or the way to it; one of these:
    |  |- AuthenticationError    7   no key, or one that the service refuses
    |  |- RateLimitError         8   too many requests; says how long to wait
    |  |- RequestRefusedError    9   the service refuses the request, in its own words
    |  |- TaskFailedError        10  the task was accepted and failed there
    |  |- TaskTimeoutError       11  not finished within the time limit; can be resumed
    |  |- UnreachableError       12  no connection, or the service is down
    |  |- InvalidAnswerError     13  an answer that is not what the service documents
    |  |- DownloadError          14  the finished file cannot be fetched, or is no whole video
    |  `- SubmissionLostError    15  the answer to a submission was lost: a task may exist, and be billed
    |- StoreError                16  the job store is damaged or cannot be written
    |- QueueFullError            17  too many jobs are waiting
    |- BatchIncompleteError      18  a batch has ended, and not all of its videos are there
    |- SpendingLimitError        19  another hosted video would cost more than was allowed
    |- RankFailedError           20  one of several processes that make a video together has died or failed
    |- BenchIncompleteError      21  a bench has ended, and not all of its runs succeeded
    |- RewriteError              22  a prompt could not be rewritten
    |- ContentBlockedError       23  a checker of frames has flagged the video, which is withheld
    |- UncheckedVideoError       23  a paid video could not be checked and is kept aside, not published
    |- ReportError               24  the work is done, and what was to be said of it cannot be written
    `- GenerationCancelledError  130 stopped on request

Each message names what was wrong, its value, what is allowed and the remedy, so that the command
line can print it as it stands. Knows nothing about where errors come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .exit_codes import ExitCode


class HunyuanLocalError(Exception):
    """Base of all errors of this package; ``exit_code`` is what the command line returns.

    ``hint`` says how to go on with work that is still open, or why it could not be kept, where there is some.
    """

    exit_code: ExitCode = ExitCode.FAILED
    hint = ""

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.hint}" if self.hint else super().__str__()

    def __reduce__(self) -> tuple[object, ...]:
        """Text and fields as they are: by default a copy's ``__init__`` would get the text for its arguments."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[HunyuanLocalError], args: tuple[object, ...]) -> HunyuanLocalError:
    """An error with this text, without ``__init__``; ``copy`` and ``pickle`` then set its fields."""
    return kind.__new__(kind, *args)


class TerminationRequest(KeyboardInterrupt):
    """The process was told to end, by a system or a closed terminal rather than by the user: give nothing up."""


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

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, problems: list[FieldProblem]):
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


@dataclass(frozen=True)
class Loss(FieldProblem):
    """A field that a target cannot hold as it is.

    ``becomes`` is what it is replaced by where the caller permits it (None: the target's own
    value); with ``permissible`` false nothing would keep its meaning, so it is refused in any case.
    """

    becomes: object = None
    permissible: bool = True

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.remedy}"

    @property
    def remedy(self) -> str:
        """What would happen with permission, or what to do instead."""
        if not self.permissible:
            return "change it, or use another backend"
        return f"with --allow-loss (allow_loss=True) it is {self.fate}"

    @property
    def fate(self) -> str:
        """What becomes of the field with permission."""
        return "left out" if self.becomes is None else f"changed to {self.becomes}"

    @property
    def note(self) -> str:
        """What is said of it where it was permitted."""
        return f"{self.field}={self.value!r} was {self.fate}: {self.rule}"


class RequestLossError(InvalidRequestError):
    """A target cannot hold the request as it is; ``losses`` name each field."""

    def __init__(self, losses: list[Loss]):
        self.losses = losses
        super().__init__(list(losses))


class ConfigError(HunyuanLocalError):
    """A configuration, a model name, a profile or an option cannot be used."""

    exit_code = ExitCode.BAD_INPUT


class OutputExistsError(HunyuanLocalError):
    """The output file exists and overwriting was not asked for."""

    exit_code = ExitCode.BAD_INPUT


class ModelLoadError(HunyuanLocalError):
    """A checkpoint is missing, incomplete, or of other classes than the pipeline needs."""

    exit_code = ExitCode.MODEL_NOT_LOADED


class UnknownModelError(ModelLoadError):
    """Nothing of a model of this name is on this machine, and whether the Hub has it cannot be asked."""

    exit_code = ExitCode.BAD_INPUT


class TokenizerMismatchError(ModelLoadError):
    """A loaded tokenizer encodes text differently from the checkpoint's own ``tokenizer.json``."""


class InvalidOutputError(HunyuanLocalError):
    """The model produced NaN, or a video that is black, constant or frozen; no file was kept."""

    exit_code = ExitCode.INVALID_OUTPUT


class VideoError(HunyuanLocalError):
    """A video file cannot be written, read, or lacks what was asked of it.

    ``cause`` is what ffmpeg or the system says of it, where that is known, without the file and the remedy.
    """

    exit_code = ExitCode.VIDEO_FILE

    def __init__(self, message: str, cause: str = ""):
        super().__init__(message)
        self.cause = cause


class GpuMemoryError(HunyuanLocalError):
    """The GPU's memory does not hold the request; no file was kept.

    ``stage`` is where it ran out, and ``peak_bytes`` the most that was allocated until then, if it did.
    """

    exit_code = ExitCode.GPU_MEMORY

    def __init__(self, message: str, stage: str | None = None, peak_bytes: int | None = None):
        self.stage, self.peak_bytes = stage, peak_bytes
        super().__init__(message)


class RewriteError(HunyuanLocalError):
    """The language model did not rewrite the prompt in time, or what it wrote cannot be used.

    Args:
        may_pass: whether a later attempt may fare better, such as that of a server that was not reached.
    """

    exit_code = ExitCode.NOT_REWRITTEN

    def __init__(self, message: str, may_pass: bool = False):
        super().__init__(message)
        self.may_pass = may_pass


class ContentBlockedError(HunyuanLocalError):
    """A checker of frames has flagged the video, and it is withheld; ``verdict`` says why.

    Args:
        verdict: as :class:`hunyuan_local.schema.SafetyVerdict` has it.
    """

    exit_code = ExitCode.CONTENT_BLOCKED

    def __init__(self, message: str, verdict: object = None):
        super().__init__(message)
        self.verdict = verdict


class UncheckedVideoError(HunyuanLocalError):
    """Only checked videos may be published, and one that is paid for could not be checked; ``path`` is where it is."""

    exit_code = ExitCode.CONTENT_BLOCKED

    def __init__(self, message: str, path: Path | None = None):
        super().__init__(message)
        self.path = path


class GenerationCancelledError(HunyuanLocalError):
    """The generation was stopped on request; no file was kept."""

    exit_code = ExitCode.CANCELLED


class HostedError(HunyuanLocalError):
    """A hosted service did not deliver; each kind is a class of its own, with an exit code."""

    exit_code = ExitCode.AUTHENTICATION


class AuthenticationError(HostedError):
    """There is no key, or the service refuses it."""


class RateLimitError(HostedError):
    """The service has had too many requests; ``retry_after_s`` is the wait it asks for, if it says."""

    exit_code = ExitCode.RATE_LIMIT

    def __init__(self, message: str, retry_after_s: float | None = None):
        self.retry_after_s = retry_after_s
        super().__init__(message)


class RequestRefusedError(HostedError):
    """The service refused the request; the message holds its own words."""

    exit_code = ExitCode.REFUSED


class TaskFailedError(HostedError):
    """The service accepted the task and could not finish it; the message holds its own words."""

    exit_code = ExitCode.TASK_FAILED


class TaskTimeoutError(HostedError):
    """The task was not finished within the time limit; it goes on at the service and can be resumed."""

    exit_code = ExitCode.TASK_TIMEOUT


class UnreachableError(HostedError):
    """There is no connection to the service, or it answers with server errors."""

    exit_code = ExitCode.UNREACHABLE


class InvalidAnswerError(HostedError):
    """An answer cannot be understood: no JSON, a field missing, an unknown status word."""

    exit_code = ExitCode.INVALID_ANSWER


class DownloadError(HostedError):
    """The finished video cannot be fetched, or what came is not a whole mp4; no file was kept."""

    exit_code = ExitCode.DOWNLOAD


class SubmissionLostError(HostedError):
    """A submission was sent and its answer lost: the service may have made, and billed, a task."""

    exit_code = ExitCode.SUBMISSION_LOST


class StoreError(HunyuanLocalError):
    """The job store is damaged, of a newer version, or cannot be written; it is left as it is."""

    exit_code = ExitCode.STORE


class QueueFullError(HunyuanLocalError):
    """So many jobs are waiting that no more are taken."""

    exit_code = ExitCode.QUEUE_FULL


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class BatchIncompleteError(HunyuanLocalError):
    """A batch has ended, and not all of its videos are there; the message counts them."""

    exit_code = ExitCode.BATCH_INCOMPLETE


class SpendingLimitError(HunyuanLocalError):
    """Another video at a hosted service would cost more than the user has allowed; nothing was sent."""

    exit_code = ExitCode.SPENDING_LIMIT


class RankFailedError(HunyuanLocalError):
    """One of the processes that make a video together has died, or failed in a way that nobody foresaw."""

    exit_code = ExitCode.RANK_FAILED


class ReportError(HunyuanLocalError):
    """The work is done, and a report of it that was asked for cannot be written; the message names what is finished."""

    exit_code = ExitCode.REPORT


class BenchIncompleteError(HunyuanLocalError):
    """A bench has ended, and not all of its runs succeeded; the message says what became of the others."""

    exit_code = ExitCode.BENCH_INCOMPLETE


def first_line(error: BaseException) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]
