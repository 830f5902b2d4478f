"""Cross-origin resource sharing (CORS): which web pages may call the server from a browser.

A browser first sends a preflight request (OPTIONS, without the key) to ask whether a page may call. Cookies are never
allowed, so a page needs an API key of its user. The server's own page is exempt here: :mod:`hunyuan_local.ui.access`
refuses calls from other pages.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ..wires.base import Fault
from ..wires.openai import POLL_AFTER_HEADER
from .auth import is_page, may_call, remedy_for
from .error_answers import refusal

_METHODS = ("GET", "HEAD", "POST", "DELETE")
# Response headers that pages may read, in addition to those that CORS always exposes.
_EXPOSED = (
    "Accept-Ranges", "Allow", "Content-Length", "Content-Range", "Date", "ETag", "Retry-After", "WWW-Authenticate",
    "x-should-retry", POLL_AFTER_HEADER,
)  # fmt: skip
_MAX_AGE_S = 3600  # time for which a browser may cache a preflight response


class CrossOrigin:
    """Adds CORS headers for allowed origins, and answers preflight requests.

    Args:
        origins: origins of the pages that may call; ``*`` allows every page.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]):
        self._app, self._origins = app, origins
        # Clients send custom headers such as x-stainless-lang, so allow any request header.
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            max_age=_MAX_AGE_S,
            allow_private_network=True,  # an allowed page may reach a server on a private network
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_page(scope["path"]):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        is_preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in asked
        if is_preflight and "origin" in asked and not may_call(asked["origin"], self._origins):
            page = asked["origin"]
            text = f"the page {page[:80]!r} may not call this server from a browser; start the server with "
            text += remedy_for(page)
            await refusal(scope["path"], Fault("forbidden", text))(scope, receive, send)
            return
        await (self._open if self._origins else self._app)(scope, receive, send)
