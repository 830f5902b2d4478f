"""The server process: starts the background threads around the app, and shuts them down in order.

Independent of routes; the model runs in the pool's processes.
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

from ..errors import ConfigError
from ..jobs.folder import DataFolder
from ..jobs.housekeeping import Chore, Housekeeper, prune, sweep
from ..jobs.pool import Pool
from ..jobs.store import JobStore
from ..jobs.webhook_queue import WebhookQueue
from ..signals import on_ending
from .app import create_app
from .config import ServerConfig
from .public_address import check_in_background
from .webhooks import WebhookSender

logger = logging.getLogger(__name__)

# Shutdown after SIGTERM: first the connections, then the workers, which save within one step if steps are short.
_CONNECTIONS_GRACE_S = 2
# Keep-alive timeout. uvicorn's default of 5 s equals that of httpx, and so of OpenAI's client: the client could send
# a request just as the server closes the connection, and the call would fail.
_IDLE_S = 75
_WORKERS_GRACE_S = 8.0


class _Server(uvicorn.Server):
    """Reports when it listens, and forwards signals to the workers immediately, since saving may take a whole step."""

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
        """Shut down as for SIGTERM, on signals that uvicorn does not handle."""
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
    """Serve until SIGTERM, SIGHUP, SIGQUIT or Ctrl-C; then save the running jobs, put them back and return.

    Args:
        port: 0 picks a free port.
        say: prints a message to the user.
        install: adds further parts to the app, such as the page.
        on_listening: called with the address once the server accepts requests.

    Raises:
        ConfigError: the address is not available.
        HunyuanLocalError: the workers keep ending with the same error.
    """
    listener = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    app = create_app(config, folder, store)
    install(app)
    sender = WebhookSender(WebhookQueue(store.database), app.state.service.webhook_call, config.allow_private_webhooks)

    def tick() -> None:
        pool.tick()
        if pool.has_ended and pool.error is not None:  # no worker is left to run jobs
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
        app.state.stopping.set()  # answers calls that wait for a video
        pool.ask_to_end()

    def announce() -> None:
        say(f"hunyuan-local is listening on {address}")
        if config.public_url is not None:
            check_in_background(config.public_url, say)
        on_listening(address)

    server = _Server(
        uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=_CONNECTIONS_GRACE_S, timeout_keep_alive=_IDLE_S
        ),
        on_listening=announce,
        on_end=end,
    )
    _report_other_models(config, store, say)
    housekeeper.start()
    sender.start()
    put_back = on_ending(server.end)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn raises the signal again after its shutdown; SIGTERM also arrives as a KeyboardInterrupt
    finally:
        housekeeper.stop()
        pool.stop(_WORKERS_GRACE_S)
        sender.stop()
        put_back()
    waiting = store.counts().get("queued", 0)
    say(f"stopped; {waiting} jobs in {folder.root} wait for the next start" if waiting else "stopped")
    if pool.error is not None and pool.has_ended:
        raise pool.error


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit this option. Without it, Nagle's algorithm and delayed ACKs hold back a response body for
        # 40 ms; asyncio sets it only on sockets created with an explicit protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigError(
            f"host={host!r}, port={port}: cannot listen: {error}; choose another --host or --port"
        ) from error


def _report_other_models(config: ServerConfig, store: JobStore, say: Callable[[str], None]) -> None:
    """Report waiting jobs of models that this server's workers do not run."""
    if config.models:
        return
    waiting = [job for job in store.find(statuses=["queued"], limit=1000) if job.model != config.model.identity]
    for model in sorted({job.origin.get("model", job.model) for job in waiting}):
        say(f"note: jobs are waiting for the model {model}; run 'hunyuan-local worker --model ...' to process them")
