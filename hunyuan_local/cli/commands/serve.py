"""``hunyuan-local serve``: the hosted services' formats and the OpenAI-style one, on a machine of one's own."""

from __future__ import annotations

from typing import Any

import rich_click as click

from ...config.extras import is_installed, require_extra
from ..shared.server import run_server, server_options


@click.command(name="serve")
@server_options
@click.option("--page/--no-page", default=None, help="The page at /ui; there if left out where the extra 'ui' is "
              "installed.")  # fmt: skip
def command(page: bool | None, **flags: Any) -> None:
    """Serve WaveSpeed's, Novita's and OpenAI's video formats, with the work done by workers of its own.

    Jobs are on disk before their ids are told; after a crash or a restart they go on. SIGTERM, a closed terminal and
    Ctrl-C save the state of the unfinished video and end the server.
    """
    if page is None:
        page = is_installed("ui")
    if not page:
        run_server(flags, with_page=False)
        return
    require_extra("ui", "the page")
    from ...ui.mount import install

    run_server(flags, with_page=True, install=install)
