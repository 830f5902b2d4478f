"""Messages between a backend and the processes that it starts: JSON, one a line, over the socket between them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


class MessageSocket:
    """One end of a connection; messages may be sent from any thread, and are received in one."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, kind: str, **content: Any) -> None:
        """Send one message; content is what JSON holds.

        Raises:
            OSError: the other end is gone.
        """
        line = json.dumps({"kind": kind} | content) + "\n"
        with self._sending:
            self._connection.sendall(line.encode())

    def receive(self) -> Iterator[Message]:
        """Messages as they come, until the other end is closed or its process is gone, however it ended."""
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    yield json.loads(line)
        except (OSError, ValueError):  # reset, or a last line cut off
            return

    def close(self) -> None:
        """Let the other end know that nothing more comes."""
        with self._sending:
            self._connection.close()
