"""A server's process: what runs beside the app, in which order it starts, and how it ends.

Knows nothing about routes; the model runs in the pool's processes.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ..ending import on_ending
from ..errors import ConfigError
from ..jobs.folder import DataFolder
from ..jobs.housekeeping import Chore, Housekeeper, prune, sweep
from ..jobs.pool import Pool
from ..jobs.store import JobStore
from ..jobs.webhook_queue import WebhookQueue
from .app import create_app
from .config import ServerConfig
from .webhooks import WebhookSender

logger = logging.getLogger(__name__)

# SIGTERM to the end: connections first, then the workers, which save within a step where a step is short.
_CONNECTIONS_GRACE_S = 2
# An idle connection is kept so long. With uvicorn's 5 s, which are also those of httpx and so of OpenAI's client, a
# client can ask at the very moment at which the server closes, and sees a call fail.
_IDLE_S = 75
_WORKERS_GRACE_S = 8.0


class _Server(uvicorn.Server):
    """Says when it listens, and passes a signal on at once: saving takes as long as a step."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None], on_end: Callable[[], None]):
        super().__init__(config)
        self._on_listening, self._on_end = on_listening, on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_end()
        super().handle_exit(sig, frame)

    def end(self, number: int, frame: FrameType | None) -> None:
        """As at SIGTERM, for the signals that uvicorn does not know."""
        self.handle_exit(signal.SIGTERM, frame)


def serve(
    config: ServerConfig,
    folder: DataFolder,
    store: JobStore,
    pool: Pool,
    *,
    host: str,
    port: int,
    say: Callable[[str], None],
    install: Callable[[FastAPI], None] = lambda app: None,
    on_listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Listen until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C; then save, give back and return.

    Args:
        port: 0 takes any free one.
        say: told the address as soon as requests are taken, and how it ended.
        install: adds to the app what is above the server, such as the page.
        on_listening: told the address as soon as requests are taken.

    Raises:
        ConfigError: the address cannot be had.
        HunyuanLocalError: the workers end again and again with the same error.
    """
    listener = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    app = create_app(config, folder, store)
    install(app)
    sender = WebhookSender(WebhookQueue(store.database), app.state.service.webhook_call, config.allow_private_webhooks)

    def tick() -> None:
        pool.tick()
        if pool.has_ended and pool.error is not None:  # no job would be worked on any more
            end()
            server.should_exit = True

    housekeeper = Housekeeper(
        [
            Chore("workers", 1.0, tick),
            Chore("leases", 2.0, store.expire),
            Chore("retention", 60.0, lambda: prune(folder, store, time.time() - config.retention_s)),
            Chore("leftovers", 600.0, lambda: sweep(folder, store, time.time())),
        ]
    )

    def end() -> None:
        app.state.stopping.set()  # calls that wait for a video are answered
        pool.ask_to_end()

    def tell() -> None:
        say(f"hunyuan-local is listening on {address}")
        on_listening(address)

    server = _Server(
        uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=_CONNECTIONS_GRACE_S, timeout_keep_alive=_IDLE_S
        ),
        on_listening=tell,
        on_end=end,
    )
    _tell_of_others(config, store, say)
    housekeeper.start()
    sender.start()
    put_back = on_ending(server.end)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again once it has ended: SIGTERM comes as one of these too
    finally:
        housekeeper.stop()
        pool.stop(_WORKERS_GRACE_S)
        sender.stop()
        put_back()
    waiting = store.counts().get("queued", 0)
    say(f"stopped; {waiting} jobs wait in {folder.root} for the next start" if waiting else "stopped")
    if pool.error is not None and pool.has_ended:
        raise pool.error


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. Without it an answer's body waits 40 ms for the client's word that its
        # head has come; asyncio sees to that only for sockets that name their protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigError(
            f"host={host!r}, port={port}: cannot be listened on: {error}; choose another --host or --port"
        ) from error


def _tell_of_others(config: ServerConfig, store: JobStore, say: Callable[[str], None]) -> None:
    """Jobs of another model wait for workers that are not started here."""
    if config.models:
        return
    others = {job.model for job in store.find(statuses=["queued"], limit=1000)} - {config.model.identity}
    for model in sorted(others):
        say(f"note: jobs wait for the model {model}; 'hunyuan-local worker --model ...' would make them")
