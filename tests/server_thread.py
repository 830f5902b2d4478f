"""A real HTTP server in a thread of the test's process, which starts and stops immediately."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import uvicorn

START_LIMIT_S = 60.0
_LOOK_S = 0.005


class _Server(uvicorn.Server):
    """Checks more than ten times per second whether to stop."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(_LOOK_S)


class ServerThread:
    """Serves from its creation until :meth:`close`, at ``url``, with uvicorn's ``server``.

    Raises:
        RuntimeError: it did not start.
    """

    def __init__(self, config: uvicorn.Config):
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # otherwise each response takes 40 ms
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.server = _Server(config)
        thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + START_LIMIT_S
        while not self.server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                self.server.should_exit = True
                raise RuntimeError("a server of the tests did not start")
            time.sleep(_LOOK_S)

    def close(self) -> None:
        """Accept no more connections; open ones end by themselves shortly."""
        self.server.should_exit = True
        while any(each.is_serving() for each in self.server.servers):
            time.sleep(_LOOK_S)
