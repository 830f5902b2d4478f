"""``hunyuan-local ui``: a server with its web page, opened in the browser."""

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

_ANY_ADDRESS = ("0.0.0.0", "::")  # valid for listening, not as an address for a browser


@click.command(name="ui")
@server_options
@click.option("--no-browser", is_flag=True, help="Print the address of the page instead of opening it.")
def command(no_browser: bool, **flags: Any) -> None:
    """Start a server and open its web page for generating videos.

    Example: hunyuan-local ui --model tiny

    This is the server of 'hunyuan-local serve' with its page at /ui: same job folder, same APIs.
    """
    require_extra("ui", "the page")
    from ...ui.mount import install

    public_url = flags["public_url"]

    def tell(address: str) -> None:
        page = f"{_reachable(address) if public_url is None else public_url.rstrip('/')}/ui"
        click.echo(f"the page is at {page}", err=True)
        if not no_browser and _has_screen():
            # Some browsers block until they are closed.
            threading.Thread(target=webbrowser.open, args=(page,), daemon=True).start()

    run_server(flags, with_page=True, install=install, on_listening=tell)


def _reachable(address: str) -> str:
    """An address that a browser on this machine can open."""
    parts = urlsplit(address)
    return f"http://127.0.0.1:{parts.port}" if parts.hostname in _ANY_ADDRESS else address


def _has_screen() -> bool:
    """Whether there is a display; without one, a text browser would take over the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
