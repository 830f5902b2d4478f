"""The standard streams: none of them closed, nothing that cannot be printed, and no error from a terminal that is gone.

A command begins with it, so it imports little.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import io
import json
import os
import sys
from typing import TextIO, cast

from .errors import ReportError

_ESCAPE = "hunyuan-local-escape"
_ERASE_LINE = b"\r\x1b[2K"
_closed: list[str] = []  # streams that whoever started this process has closed


class _BestEffort(io.RawIOBase):
    """A descriptor to write to; what it does not take, such as of a full disk or a closed terminal, is lost."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.passing = False  # on the terminal's last line is something that the next output replaces

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # all that a buffer hands on
        rest = memoryview((_ERASE_LINE if self.passing else b"") + bytes(data))
        self.passing = False
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return len(data)


def prepare_streams() -> None:
    """Make stdin, stdout and stderr what the rest of a command relies on.

    A closed one leads nowhere, rather than to the next file that is opened. What the encoding of stdout or stderr
    does not hold is escaped as JSON does, ``\\u00e9``. Stderr only reports, so its errors end nothing.
    """
    codecs.register_error(_ESCAPE, _escape)
    for descriptor in range(3):
        _open_if_closed(descriptor)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        _closed.append("stdout")
        sys.stdout = open(os.devnull, "w", encoding="utf-8", errors=_ESCAPE)  # noqa: SIM115
    elif sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=_ESCAPE)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8", errors=_ESCAPE)  # noqa: SIM115
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        raw = io.BufferedWriter(cast("io.RawIOBase", _BestEffort(2)), 1 << 16)
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, _ESCAPE, line_buffering=True, write_through=True)


def announce(text: str) -> None:
    """Say on stderr what takes a while from now on: a line, which on a terminal the next output replaces.

    Nothing is said where stderr is not that of the process.
    """
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    if not isinstance(raw, _BestEffort):
        return
    if not raw.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        print(f"{text} ...", file=sys.stderr, flush=True)
        return
    print(f"{text} ...", end="", file=sys.stderr, flush=True)
    raw.passing = True
    atexit.register(raw.write, b"")


def tell(text: str) -> str:
    """Print a result on stdout, now; why that is not possible, or an empty text."""
    try:
        print(text, flush=True)
    except OSError as error:
        silence(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return "whoever read stdout has left"
        return f"stdout cannot be written: {error.strerror or error}"
    return "stdout is closed" if "stdout" in _closed else ""


def flush_stdout() -> None:
    """Write what stdout still holds.

    Raises:
        BrokenPipeError: whoever read it has left.
        ReportError: it cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)  # or it would fail again at the end of the process
        raise ReportError(
            f"stdout cannot be written: {error.strerror or error}; send it elsewhere, or make room"
        ) from error


def silence(stream: TextIO) -> None:
    """Let a stream lead nowhere, also what it has not written yet."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest one that is free
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        os.set_inheritable(descriptor, True)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
