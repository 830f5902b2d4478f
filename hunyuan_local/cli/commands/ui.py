"""``hunyuan-local ui``: a server with its page, opened in the browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from typing import Any
from urllib.parse import urlsplit

import rich_click as click

from ...config.extras import require_extra
from ..shared.server import run_server, server_options

_ANY_ADDRESS = ("0.0.0.0", "::")  # to listen on; a browser needs one to go to


@click.command(name="ui")
@server_options
@click.option("--no-browser", is_flag=True, help="Only say where the page is.")
def command(no_browser: bool, **flags: Any) -> None:
    """Open a page in the browser to make videos with, served from this machine.

    It is the server of 'hunyuan-local serve', with its page at /ui: jobs and videos stay in the same folder, and its
    other formats are there as well.
    """
    require_extra("ui", "the page")
    from ...ui.mount import install

    public_url = flags["public_url"]

    def tell(address: str) -> None:
        page = f"{_reachable(address) if public_url is None else public_url.rstrip('/')}/ui"
        click.echo(f"the page is at {page}", err=True)
        if not no_browser and _has_screen():
            # Some browsers return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()

    run_server(flags, with_page=True, install=install, on_listening=tell)


def _reachable(address: str) -> str:
    """An address that a browser of this machine can go to."""
    parts = urlsplit(address)
    return f"http://127.0.0.1:{parts.port}" if parts.hostname in _ANY_ADDRESS else address


def _has_screen() -> bool:
    """Whether a browser would have a window; on a machine without one, a browser of text would take the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
