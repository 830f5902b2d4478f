"""Messages between a backend and its ranks: one JSON object per line over a socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


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
