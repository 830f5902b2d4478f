"""Standard streams that are never closed, can print any text, and ignore a terminal that is gone.

Every command uses this module first, so it imports little.
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
_closed: list[str] = []  # streams that were closed when this process started


class _BestEffort(io.RawIOBase):
    """Writes to a descriptor and ignores errors, such as a full disk or a closed terminal."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.passing = False  # the next output replaces the last line on the terminal

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # BufferedWriter passes only bytes
        rest = memoryview((_ERASE_LINE if self.passing else b"") + bytes(data))
        self.passing = False
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return len(data)


def prepare_streams() -> None:
    """Prepare stdin, stdout and stderr for the rest of a command.

    Closed streams are connected to ``/dev/null``, or the next opened file would take their descriptor. Characters that
    stdout or stderr cannot encode are escaped as in JSON, ``\\u00e9``. Errors on stderr are ignored, since it only
    carries messages.
    """
    codecs.register_error(_ESCAPE, _escape)
    for descriptor in range(3):
        _open_if_closed(descriptor)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - stays open until the process ends
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
    """Print on stderr that something slow starts; on a terminal, the next output replaces the line.

    Does nothing if ``sys.stderr`` was replaced.
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
    """Print a result on stdout and flush it; return the reason if that fails, else an empty string."""
    try:
        print(text, flush=True)
    except OSError as error:
        silence(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return "the reader of stdout has closed it"
        return f"stdout cannot be written: {error.strerror or error}"
    return "stdout is closed" if "stdout" in _closed else ""


def flush_stdout() -> None:
    """Flush stdout.

    Raises:
        BrokenPipeError: the reader has closed it.
        ReportError: it cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence(sys.stdout)  # otherwise flushing would fail again at exit
        raise ReportError(
            f"stdout cannot be written: {error.strerror or error}; redirect it elsewhere, or free disk space"
        ) from error


def silence(stream: TextIO) -> None:
    """Discard all further output of a stream, including what is still buffered."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)  # opens the lowest free descriptor
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
        os.set_inheritable(descriptor, True)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
