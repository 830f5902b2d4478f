"""Messages between a backend and its ranks: one JSON object per line over a socket."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

from ...schema import GenerationRequest

Message = dict[str, Any]
R = TypeVar("R", bound=GenerationRequest)


def image_text(request: GenerationRequest) -> str | None:
    """The file of a request's input image in base64, since a request as JSON only describes it; None without one."""
    return None if request.image is None else base64.b64encode(request.image.content()).decode()


def with_image(request: R, text: str | None) -> R:
    """Return a request whose input image has the file of :func:`image_text`."""
    if request.image is None or text is None:
        return request
    return request.replace(image=request.image.with_content(base64.b64decode(text)))


class MessageSocket:
    """One end of a connection; any thread may send, only one may receive."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, kind: str, **content: Any) -> None:
        """Send one message; the content must be serializable as JSON.

        Raises:
            OSError: the other end has closed the connection.
        """
        line = json.dumps({"kind": kind} | content) + "\n"
        with self._sending:
            self._connection.sendall(line.encode())

    def receive(self) -> Iterator[Message]:
        """Yield messages until the other end closes the connection or its process exits for any reason."""
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError):  # connection reset, or last line truncated
            return

    def close(self) -> None:
        """Close the connection."""
        with self._sending:
            self._connection.close()
