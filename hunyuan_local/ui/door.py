"""Who may see the page, and which of its paths there are: a door in front of everything under ``/ui``.

Where the server has keys, the page asks for one with a form and remembers it with a cookie. What a page of another
origin sends is refused, and so is each of Gradio's routes that this page does not need: uploads, files, proxies. Knows
nothing about jobs.
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

from ..server.faults import refusal
from ..wires.base import Fault
from .passes import Passes

PREFIX = "/ui"
_LOGIN, _LOGOUT = f"{PREFIX}/login", f"{PREFIX}/logout"
_PATHS = re.compile(
    rf"{PREFIX}/("
    r"|alive|(poster|preview|video)/[^/]+"
    r"|config/?|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(assets|static|svelte)/.+"
    r"|gradio_api/(info/?|startup-events|app_id/?|theme\.css|login_check/?|heartbeat/[^/]+"
    r"|queue/(join|data)|run/[^/]+/?|api/[^/]+/?|cancel|reset/?)"
    r")"
)
_WRONG = (
    '<p role="alert" id="wrong">This is not one of the server\'s keys. Type it again, or ask who runs the server.</p>'
)
# The page calls this server and nobody else. Gradio evaluates its templates, hence unsafe-eval.
_HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
_LOOK_S = 0.25


class Door:
    """Lets calls through to the page.

    Args:
        app: serves the paths under ``/ui``.
        passes: None where the server has no keys: then :class:`hunyuan_local.server.auth.Auth` has judged the call.
        public_url: the address that visitors see, where it is not the one that this process sees.
        stopping: set when the server is to end; open streams are ended then.
    """

    def __init__(self, app: ASGIApp, passes: Passes | None, public_url: str | None, stopping: threading.Event):
        self._app, self._passes, self._stopping = app, passes, stopping
        self._public = None if public_url is None else urlsplit(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # the page has none
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        response = await self._judge(Request(scope, receive))
        if response is None:
            await self._app(self._seen_from_outside(scope), self._until_the_end(receive), answer)
        else:
            await response(scope, receive, answer)

    async def _judge(self, request: Request) -> Response | None:
        """The answer of the door itself; None lets the call through."""
        path = request.scope["path"]
        if (origin := request.headers.get("origin")) is not None and not self._is_own(origin, request):
            text = f"this call is of the page {origin[:80]!r}; the page of a server is called by itself alone"
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
                return refusal(path, Fault("unauthorized", f"log in first, at {_LOGIN}"))
        if _PATHS.fullmatch(path) is None:
            return refusal(path, Fault("not_found", f"there is nothing at {path[:200]!r}; the page is at {PREFIX}/"))
        return None

    async def _log_in(self, passes: Passes, request: Request) -> Response:
        # Relative addresses here and above: a proxy may have put the server under a path of its own.
        if request.method in ("GET", "HEAD"):
            return _form("")
        if request.method != "POST":
            return refusal(_LOGIN, Fault("method_not_allowed", "the key is sent with POST"))
        fields = parse_qs((await request.body()).decode(errors="replace"))
        found = passes.issue(fields.get("key", [""])[0])
        if found is None:
            return _form(_WRONG, 401)
        response = RedirectResponse("./", 303)
        # Without a path it is for that of this form, which is the page's.
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

    def _seen_from_outside(self, scope: Scope) -> Scope:
        """The call as a visitor made it, for the addresses that Gradio writes into the page."""
        if self._public is None:
            return {**scope, "root_path": ""}
        ours = {b"x-forwarded-host": self._public.netloc.encode(), b"x-forwarded-proto": self._public.scheme.encode()}
        headers = [(name, value) for name, value in scope["headers"] if name not in ours]
        outside = self._public.path.rstrip("/")
        return {**scope, "path": outside + scope["path"], "root_path": outside, "headers": [*headers, *ours.items()]}

    def _until_the_end(self, receive: Receive) -> Receive:
        """A visitor's connection ends when the server is to: Gradio's streams would hold it up."""

        async def receive_until_the_end() -> Message:
            waiting = asyncio.ensure_future(receive())
            try:
                while not self._stopping.is_set():
                    done, _ = await asyncio.wait({waiting}, timeout=_LOOK_S)
                    if done:
                        return waiting.result()
                return {"type": "http.disconnect"}
            finally:
                waiting.cancel()

        return receive_until_the_end


def _form(wrong: str, status: int = 200) -> HTMLResponse:
    page = Path(__file__).with_name("login.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("<!-- wrong -->", wrong), status, {"cache-control": "no-store"})
