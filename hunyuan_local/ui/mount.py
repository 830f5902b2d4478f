"""Mounts the page at ``/ui`` of a server's app.

Imports Gradio, the extra ``ui``, only when called. Gradio serves none of our files: the media routes are in
:mod:`hunyuan_local.ui.media`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from ..config.extras import require_extra
from ..config.network import without_network_variables
from ..server import error_answers
from .access import PREFIX, Door
from .actions import Studio
from .gradio_private import look_for_events_every
from .media import add_routes
from .session_cookie import Passes

_FOLDER = Path(__file__).parent
_BETWEEN_LOOKS_S = 0.05


def install(app: FastAPI) -> None:
    """Serve the page in addition to the app's routes; on a server with API keys, behind a login form.

    Args:
        app: from :func:`hunyuan_local.server.app.create_app`, not started yet.

    Raises:
        ConfigError: the extra ``ui`` is not installed.
    """
    studio = Studio(app.state.service)
    with without_network_variables():  # importing Gradio creates HTTP clients that it does not need here
        inner = _make_inner(studio)
    config = studio.service.config
    passes = Passes(config.api_keys, studio.service.folder.secret("page")) if config.api_keys else None

    @app.get(PREFIX, include_in_schema=False)
    async def page() -> RedirectResponse:
        return RedirectResponse(f"{PREFIX.removeprefix('/')}/")  # relative: a reverse proxy may add a path prefix

    app.mount(PREFIX, Door(inner, passes, config.public_url, app.state.stopping))
    outer_lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(outer: FastAPI) -> AsyncIterator[Any]:
        async with outer_lifespan(outer) as state, inner.router.lifespan_context(inner):
            yield state

    app.router.lifespan_context = lifespan


def _make_inner(studio: Studio) -> FastAPI:
    """An app with the page and its media at ``/ui``, without access control."""
    require_extra("ui", "the page")
    import gradio

    from .components import make_theme
    from .page import build_page

    inner = FastAPI(openapi_url=None)
    error_answers.install(inner)
    add_routes(inner, studio)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    page = build_page(studio)
    look_for_events_every(page, _BETWEEN_LOOKS_S)
    gradio.mount_gradio_app(
        inner,
        page,
        PREFIX,
        theme=make_theme(),
        css=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{script}</script>",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
    )
    return inner
