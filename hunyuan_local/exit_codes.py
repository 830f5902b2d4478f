"""Exit codes of the command line and their meanings, used by errors, ``--help`` and the documentation."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """An exit code and its ``meaning``. Codes keep their meaning in all releases."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    DONE = 0, "done"
    FAILED = 1, "a replay differs, doctor found a problem, or an unexpected error"
    BAD_INPUT = 2, "bad input: a value, option, file or setting cannot be used"
    MODEL_NOT_LOADED = 3, "the model cannot be loaded"
    INVALID_OUTPUT = 4, "the video is invalid (NaN, black, constant or frozen)"
    VIDEO_FILE = 5, "a video file cannot be written or read"
    GPU_MEMORY = 6, "the request does not fit into GPU memory or main memory"
    AUTHENTICATION = 7, "hosted service: the API key is missing or refused"
    RATE_LIMIT = 8, "hosted service: too many requests"
    REFUSED = 9, "hosted service: the request is refused"
    TASK_FAILED = 10, "hosted service: the task failed"
    TASK_TIMEOUT = 11, "hosted service: the task did not finish in time; it can be resumed"
    UNREACHABLE = 12, "hosted service: not reachable"
    INVALID_ANSWER = 13, "hosted service: a response cannot be understood"
    DOWNLOAD = 14, "hosted service: the video cannot be downloaded"
    SUBMISSION_LOST = 15, "hosted service: the response to a submission was lost"
    STORE = 16, "the job store cannot be used"
    QUEUE_FULL = 17, "too many jobs are queued"
    BATCH_INCOMPLETE = 18, "videos of a batch are missing"
    SPENDING_LIMIT = 19, "the spending limit is reached"
    RANK_FAILED = 20, "a process of a multi-GPU run died"
    BENCH_INCOMPLETE = 21, "runs of a bench failed"
    NOT_REWRITTEN = 22, "the prompt could not be rewritten"
    CONTENT_BLOCKED = 23, "the safety check withheld the video, or could not check a paid video that requires it"
    REPORT = 24, "the output, or a requested report of finished work, cannot be written"
    CANCELLED = 130, "cancelled, by Ctrl-C, SIGTERM, SIGQUIT or a closed terminal"
