"""One large file over HTTP into a file on disk, from where the last attempt broke off.

The Hub's own client begins such a file anew in every process and deletes the unfinished part, which
for a file of gigabytes is not bearable. Knows nothing about models or the cache's layout.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

ATTEMPTS = 5  # in a row, without a new byte
PAUSE_S = 1.0  # after the first of them, then twice as long each time
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class TransferStoppedError(Exception):
    """The transfer was told to stop; what has arrived stays."""


class DamagedFileError(Exception):
    """What arrived is not what was promised; it was deleted."""


class ServerFaultError(Exception):
    """The server does not answer as it should; ``may_pass`` says whether another attempt has a point."""

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
    """Bring ``part`` to its full size, and check its hash.

    Args:
        client: follows redirects, and has what headers the server wants.
        part: what it holds already is the beginning of the file.
        on_bytes: told how many bytes arrived, or negative, how many have to be fetched again.
        stop: set it from another thread to stop within a piece.

    Raises:
        TransferStoppedError: ``stop`` was set.
        DamagedFileError: the size or the hash is another than promised.
        httpx.TransportError, ServerFaultError: the connection or the server failed several times in a row.
        OSError: the disk is full, or cannot be written.
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
    raise DamagedFileError(f"{url.rpartition('/')[2]} did not arrive as the Hub describes it, and was deleted")


def _receive(
    client: httpx.Client, url: str, part: Path, have: int, on_bytes: Callable[[int], None], stop: threading.Event
) -> None:
    """One answer of the server, as far as it comes."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if not response.is_success:
            said = f"HTTP {response.status_code} from {response.url.host}"
            raise ServerFaultError(said, response.status_code in _TRANSIENT)
        goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT
        if goes_on and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise ServerFaultError(f"asked from byte {have}, got {response.headers.get('Content-Range')!r}")
        if not goes_on:
            on_bytes(-have)  # the server sends the whole file, whatever it was asked
        with part.open("ab" if goes_on else "wb") as file:
            for piece in response.iter_raw():
                if stop.is_set():  # before the write: someone else may go on with this file by now
                    raise TransferStoppedError
                file.write(piece)
                file.flush()
                on_bytes(len(piece))
