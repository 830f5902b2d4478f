"""Calls by web pages of other origins: which may call, and what their browsers are told (CORS, the Fetch standard).

A browser asks before a page's call whether the page may (a preflight, the method OPTIONS), without a key. Cookies are
never allowed, so a page calls with a key that it was given. The paths of the server's own page are left out: its door
lets no other page in.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from ..wires.base import Fault
from ..wires.openai import POLL_AFTER_HEADER
from .auth import asks_by_itself, may_call, remedy_for
from .faults import refusal

_METHODS = ("GET", "HEAD", "POST", "DELETE")
# What a page may read beside the body and the few headers that every page may.
_EXPOSED = (
    "Accept-Ranges", "Allow", "Content-Length", "Content-Range", "Date", "ETag", "Retry-After", "WWW-Authenticate",
    "x-should-retry", POLL_AFTER_HEADER,
)  # fmt: skip
_MAX_AGE_S = 3600  # for which a browser does not ask again


class CrossOrigin:
    """Adds the headers without which a browser keeps an answer from its page, and answers preflights.

    Args:
        origins: of the pages that may call; ``*`` is every page.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]):
        self._app, self._origins = app, origins
        # Clients send headers of their own, such as x-stainless-lang, so each one that is asked for is allowed.
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            max_age=_MAX_AGE_S,
            allow_private_network=True,  # who named a page wants it to reach this machine
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or asks_by_itself(scope["path"]):
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        is_preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in asked
        if is_preflight and "origin" in asked and not may_call(asked["origin"], self._origins):
            page = asked["origin"]
            text = f"a browser asks whether the page {page[:80]!r} may call; it may not: start the server with "
            text += remedy_for(page)
            await refusal(scope["path"], Fault("forbidden", text))(scope, receive, send)
            return
        await (self._open if self._origins else self._app)(scope, receive, send)
