"""``hunyuan-local serve``: a server with the APIs of the hosted services and an OpenAI-style API."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ...config.extras import is_installed, require_extra
from ..shared.server import run_server, server_options


@click.command(name="serve")
@server_options
@click.option("--page/--no-page", default=None, show_default="on if the extra 'ui' is installed",
              help="Serve the web page at /ui.")  # fmt: skip
def command(page: bool | None, **flags: Any) -> None:
    """Start a server with the video APIs of WaveSpeed, Novita and OpenAI.

    Example: hunyuan-local serve --model tiny --port 8000

    The server starts its own workers. Jobs are stored on disk before their ids are returned, and resume after a crash
    or a restart. Ctrl-C, SIGTERM or a closed terminal saves the state of the unfinished video and stops the server.
    """
    if page is None:
        page = is_installed("ui")
    if not page:
        run_server(flags, with_page=False)
        return
    require_extra("ui", "the page")
    from ...ui.mount import install

    run_server(flags, with_page=True, install=install)
