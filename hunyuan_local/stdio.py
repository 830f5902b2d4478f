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


class _Stream(io.RawIOBase):
    """Writes to a descriptor. Leaves errors to ``_failed``, so that no caller meets an unexpected ``OSError``."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # BufferedWriter passes only bytes
        rest = memoryview(bytes(data))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._failed(error)
        return len(data)

    def _failed(self, error: OSError) -> None:
        raise NotImplementedError


class _BestEffort(_Stream):
    """Ignores errors, such as a full disk or a closed terminal."""

    def __init__(self, descriptor: int):
        super().__init__(descriptor)
        self.passing = False  # the next output replaces the last line on the terminal

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        super().write((_ERASE_LINE if self.passing else b"") + bytes(data))
        self.passing = False
        return len(data)

    def _failed(self, error: OSError) -> None:
        pass


class _Results(_Stream):
    """Raises the first error as a ``ReportError``, and discards everything after it.

    Attributes:
        why: the first error in words; empty if there was none.
    """

    why = ""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        return len(data) if self.why else super().write(data)

    def _failed(self, error: OSError) -> None:
        self.why = f"stdout cannot be written: {error.strerror or error}"
        remedy = "redirect it elsewhere, or free disk space"
        if isinstance(error, BrokenPipeError):
            self.why, remedy = "the reader of stdout has closed it", "the rest of the output is lost"
        raise ReportError(f"{self.why}; {remedy}") from error


def prepare_streams() -> None:
    """Prepare stdin, stdout and stderr for the rest of a command.

    Closed streams are connected to ``/dev/null``, or the next opened file would take their descriptor. Characters that
    stdout or stderr cannot encode are escaped as in JSON, ``\\u00e9``. An error on stdout becomes a ``ReportError``, in
    whatever command or library writes there. Errors on stderr are ignored, since it only carries messages.
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
        sys.stdout = _text(_Results(1), sys.stdout, line_buffering=sys.stdout.isatty())
        atexit.register(_flush_the_rest)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8", errors=_ESCAPE)  # noqa: SIM115
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _text(_BestEffort(2), sys.stderr, line_buffering=True, write_through=True)


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
    with contextlib.suppress(ReportError):
        print(text, flush=True)
    return _failure() or ("stdout is closed" if "stdout" in _closed else "")


def flush_stdout() -> None:
    """Flush stdout.

    Raises:
        ReportError: it cannot be written.
    """
    sys.stdout.flush()


def _flush_the_rest() -> None:
    """Flush stdout after an error that ends the command; Python's own flush at exit would change the exit code."""
    with contextlib.suppress(ReportError, ValueError):
        sys.stdout.flush()


def _failure() -> str:
    """Why stdout could not be written earlier; empty if it could."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.why if isinstance(raw, _Results) else ""


def _text(raw: _Stream, old: TextIO, *, line_buffering: bool, write_through: bool = False) -> TextIO:
    """A text stream with the encoding of the old one; characters that it cannot encode are escaped."""
    buffer = io.BufferedWriter(cast("io.RawIOBase", raw), 1 << 16)
    return io.TextIOWrapper(buffer, old.encoding, _ESCAPE, line_buffering=line_buffering, write_through=write_through)


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
