"""The names of the injectable faults, and those of their responses that have no service's format.

server.py maps each fault to an answer.
"""

from __future__ import annotations

import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

FAULTS = frozenset(
    {
        "submit-429",
        "submit-500",
        "submit-html-502",
        "submit-drop",
        "submit-malformed",
        "submit-401",
        "poll-429",
        "poll-500",
        "poll-drop",
        "poll-malformed",
        "poll-html",
        "poll-unknown-status",
        "poll-404",
        "poll-slow",
        "task-failed",
        "file-403",
        "file-404",
        "file-500",
        "file-truncated",
        "file-cut",
        "file-html",
    }
)
GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
BUSY_PAGE = "<html><body>We will be back soon.</body></html>"


class Broken(Response):
    """Closes the connection: before any answer, or halfway through `announced`, whose full length the header gives.

    An exception in an ASGI application would not do: uvicorn turns it into a 500. Hence its own connections.
    """

    def __init__(self, server: uvicorn.Server, announced: bytes = b"") -> None:
        super().__init__(announced, media_type="video/mp4")
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.body:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            half = self.body[: len(self.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
        for connection in tuple(self._server.server_state.connections):
            if connection.client == scope["client"]:
                connection.transport.close()
        # uvicorn must see the end of the connection before this returns; otherwise it still writes a 500.
        while (await receive())["type"] != "http.disconnect":
            pass
