"""Downloads one large file over HTTP, resuming from where the last attempt stopped.

The Hub client restarts such a file from zero in every process and deletes the unfinished part, which is unacceptable
for files of several gigabytes. Does not depend on models or on the cache layout.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

ATTEMPTS = 5  # consecutive failures without a new byte
PAUSE_S = 1.0  # after the first failure; doubles each time
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class TransferStoppedError(Exception):
    """The transfer was stopped; the partial file is kept."""


class DamagedFileError(Exception):
    """The file does not match its expected size or hash; it was deleted."""


class ServerFaultError(Exception):
    """The server sent an unexpected answer; ``may_pass`` says whether it is worth retrying."""

    def __init__(self, message: str, may_pass: bool = True):
        self.may_pass = may_pass
        super().__init__(message)


def fetch_file(
    client: httpx.Client,
    url: str,
    part: Path,
    size: int,
    sha256: str,
    on_bytes: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Download the rest of ``part`` and check its hash.

    Args:
        client: must follow redirects and send the headers that the server requires.
        part: the partial file; its content is the beginning of the file.
        on_bytes: called with the number of received bytes, or a negative number if bytes must be downloaded again.
        stop: set it from another thread to stop after the current chunk.

    Raises:
        TransferStoppedError: ``stop`` was set.
        DamagedFileError: the size or the hash does not match.
        httpx.TransportError, ServerFaultError: the connection or the server failed several times in a row.
        OSError: the disk is full or not writable.
    """
    part.touch()
    failures = 0
    while (have := part.stat().st_size) < size:
        try:
            _receive(client, url, part, have, on_bytes, stop)
            if part.stat().st_size < size:
                raise ServerFaultError("the answer ended early")
        except (httpx.TransportError, ServerFaultError) as error:
            failures = 1 if part.stat().st_size > have else failures + 1
            if failures >= ATTEMPTS or not getattr(error, "may_pass", True):
                raise
            if stop.wait(PAUSE_S * 2 ** (failures - 1)):
                raise TransferStoppedError from error
    with part.open("rb") as file:
        if have == size and hashlib.file_digest(file, "sha256").hexdigest() == sha256:
            return
    part.unlink()
    on_bytes(-have)
    raise DamagedFileError(f"{url.rpartition('/')[2]} does not match the size or hash on the Hub and was deleted")


def _receive(
    client: httpx.Client, url: str, part: Path, have: int, on_bytes: Callable[[int], None], stop: threading.Event
) -> None:
    """Append one response of the server to ``part``."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if not response.is_success:
            said = f"HTTP {response.status_code} from {response.url.host}"
            raise ServerFaultError(said, response.status_code in _TRANSIENT)
        is_resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
        if is_resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ServerFaultError(f"requested from byte {have}, got {response.headers.get('Content-Range')!r}")
        if not is_resumed:
            on_bytes(-have)  # the server ignores Range and sends the whole file
        with part.open("ab" if is_resumed else "wb") as file:
            for piece in response.iter_raw():
                if stop.is_set():  # before the write: another process may be using this file by now
                    raise TransferStoppedError
                file.write(piece)
                file.flush()
                on_bytes(len(piece))
