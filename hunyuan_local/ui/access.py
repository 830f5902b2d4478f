"""Access control for the page: an ASGI wrapper around all paths under ``/ui``.

On a server with API keys, a login form asks for one, and a cookie keeps the login. Refuses calls from pages of other
origins, and Gradio's routes that this page does not need: uploads, files, proxies. The page's own upload takes images
alone. Independent of jobs.
"""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..server.error_answers import refusal
from ..wires.base import Fault
from .session_cookie import Passes

PREFIX = "/ui"
_LOGIN, _LOGOUT = f"{PREFIX}/login", f"{PREFIX}/logout"
_PATHS = re.compile(
    rf"{PREFIX}/("
    r"|alive|image|(image|poster|preview|video)/[^/]+"
    r"|config/?|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(assets|static|svelte)/.+"
    r"|gradio_api/(info/?|startup-events|app_id/?|theme\.css|login_check/?|heartbeat/[^/]+"
    r"|queue/(join|data)|run/[^/]+/?|api/[^/]+/?|cancel|reset/?)"
    r")"
)
_WRONG = '<p role="alert" id="wrong">This key is wrong. Check it, or ask the server\'s administrator for one.</p>'
# The page may call only this server. Gradio evaluates its templates, hence unsafe-eval.
_HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
_LOOK_S = 0.25


class Door:
    """Checks calls before they reach the page.

    Args:
        app: serves the paths under ``/ui``.
        passes: None for a server without API keys, where :class:`hunyuan_local.server.auth.Auth` checks the call.
        public_url: the public base URL, if it differs from the one that this process sees.
        stopping: set when the server shuts down; ends open streams.
    """

    def __init__(self, app: ASGIApp, passes: Passes | None, public_url: str | None, stopping: threading.Event):
        self._app, self._passes, self._stopping = app, passes, stopping
        self._public = None if public_url is None else urlsplit(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # the page uses no web sockets
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        response = await self._own_response(Request(scope, receive))
        if response is None:
            await self._app(self._with_public_url(scope), self._until_shutdown(receive), answer)
        else:
            await response(scope, receive, answer)

    async def _own_response(self, request: Request) -> Response | None:
        """The response of the door itself; None lets the call through."""
        path = request.scope["path"]
        if (origin := request.headers.get("origin")) is not None and not self._is_own(origin, request):
            text = f"this call is from the page {origin[:80]!r}; only the server's own page may call here"
            return refusal(path, Fault("forbidden", text))
        if self._passes is not None:
            if path == _LOGIN:
                return await self._log_in(self._passes, request)
            if path == _LOGOUT and request.method == "POST":
                response = RedirectResponse("login", 303)
                response.set_cookie(self._passes.cookie, max_age=0, path=None)
                return response
            if not self._passes.accept(request.cookies.get(self._passes.cookie, "")):
                if path == f"{PREFIX}/" and request.method in ("GET", "HEAD"):
                    return RedirectResponse("login", 303)
                return refusal(path, Fault("unauthorized", f"log in first at {_LOGIN}"))
        if _PATHS.fullmatch(path) is None:
            return refusal(path, Fault("not_found", f"nothing found at {path[:200]!r}; the page is at {PREFIX}/"))
        return None

    async def _log_in(self, passes: Passes, request: Request) -> Response:
        # Relative addresses here and above: a reverse proxy may serve the page under a path prefix.
        if request.method in ("GET", "HEAD"):
            return _form("")
        if request.method != "POST":
            return refusal(_LOGIN, Fault("method_not_allowed", "send the key with POST"))
        fields = parse_qs((await request.body()).decode(errors="replace"))
        found = passes.issue(fields.get("key", [""])[0])
        if found is None:
            return _form(_WRONG, 401)
        response = RedirectResponse("./", 303)
        # Without a path, the cookie applies to the path of this form, which is that of the page.
        response.set_cookie(
            passes.cookie, found, max_age=passes.ttl_s, path=None, httponly=True, samesite="strict",
            secure=self._is_https(request),
        )  # fmt: skip
        return response

    def _is_own(self, origin: str, request: Request) -> bool:
        netloc = urlsplit(origin).netloc.lower()
        return bool(netloc) and netloc in (
            request.headers.get("host", "").lower(),
            self._public and self._public.netloc,
        )

    def _is_https(self, request: Request) -> bool:
        return (self._public is not None and self._public.scheme == "https") or request.url.scheme == "https"

    def _with_public_url(self, scope: Scope) -> Scope:
        """The scope with the public URL, since Gradio writes absolute addresses into the page."""
        if self._public is None:
            return {**scope, "root_path": ""}
        ours = {b"x-forwarded-host": self._public.netloc.encode(), b"x-forwarded-proto": self._public.scheme.encode()}
        headers = [(name, value) for name, value in scope["headers"] if name not in ours]
        outside = self._public.path.rstrip("/")
        return {**scope, "path": outside + scope["path"], "root_path": outside, "headers": [*headers, *ours.items()]}

    def _until_shutdown(self, receive: Receive) -> Receive:
        """Report a disconnect when the server shuts down, since Gradio's open streams would delay it."""

        async def receive_until_shutdown() -> Message:
            waiting = asyncio.ensure_future(receive())
            try:
                while not self._stopping.is_set():
                    done, _ = await asyncio.wait({waiting}, timeout=_LOOK_S)
                    if done:
                        return waiting.result()
                return {"type": "http.disconnect"}
            finally:
                waiting.cancel()

        return receive_until_shutdown


def _form(wrong: str, status: int = 200) -> HTMLResponse:
    page = Path(__file__).with_name("login.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("<!-- wrong -->", wrong), status, {"cache-control": "no-store"})
