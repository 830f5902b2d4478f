"""Authentication: every path requires an API key unless this module exempts it."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ..wires.base import Fault
from .config import NO_ORIGIN
from .error_answers import refusal

# /files/ uses signed URLs; the other paths reveal nothing about jobs.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
_OPEN_PREFIX = "/files/"
_BARE_KEY_PREFIX = "/v3/"  # Novita's JavaScript client sends the key without "Bearer"
_PAGE = "/ui"
PAGE_UPLOAD_PATH = f"{_PAGE}/image"  # takes larger bodies than the other paths of the page


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def takes_bare_key(path: str) -> bool:
    """Whether the Authorization header may contain the key alone, without ``Bearer``."""
    return path.startswith(_BARE_KEY_PREFIX)


def is_page(path: str) -> bool:
    """Whether a path belongs to the page, which asks for the key in a form: browsers cannot send it in a header."""
    return path == _PAGE or path.startswith(f"{_PAGE}/")


class Auth:
    """Lets calls with ``Authorization: Bearer KEY`` pass; on a server without keys, calls of programs on this machine.

    Args:
        hosts: allowed host names of a server without keys; None allows all. This blocks web pages shown by a browser
            on this machine: their calls have another origin, or after DNS rebinding another host.
        origins: other origins whose pages may call; ``*`` allows every page.
    """

    def __init__(
        self, app: ASGIApp, keys: tuple[str, ...], hosts: frozenset[str] | None, origins: tuple[str, ...] = ()
    ):
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._hosts, self._origins = hosts, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope["path"], fault)(scope, receive, send)

    def _fault(self, scope: Scope) -> Fault | None:
        path = scope["path"]
        if is_open(path):
            return None
        if not self._keys:
            return self._cross_site_fault(scope)
        if is_page(path):
            return None
        shown = dict(scope["headers"]).get(b"authorization", b"").strip()
        scheme, _, key = shown.partition(b" ")
        if scheme.lower() != b"bearer":
            key = shown if takes_bare_key(path) else b""
        key = key.strip()
        if not shown or (scheme.lower() == b"bearer" and not key):
            return Fault("no_key", "no API key; send the header 'Authorization: Bearer KEY'")
        # Compare with all keys, so that the response time reveals nothing.
        if any([hmac.compare_digest(key, known) for known in self._keys]):
            return None
        return Fault("unauthorized", "the API key is wrong; send 'Authorization: Bearer KEY'")

    def _cross_site_fault(self, scope: Scope) -> Fault | None:
        if self._hosts is None:
            return None
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        is_here = _name(host) in self._hosts
        if is_here and (not origin or _netloc(origin) == host.lower() or may_call(origin, self._origins)):
            return None
        said = f"the page {origin[:80]!r}" if origin and is_here else f"the host {host[:80]!r}"
        remedy = f"{remedy_for(origin)}, " if origin and is_here else ""
        return Fault(
            "forbidden",
            f"without API keys the server answers only programs on this machine, but this call is from {said}; call "
            f"127.0.0.1 or localhost, set API keys, or start the server with {remedy}--insecure or --public-url",
        )


def may_call(origin: str, origins: tuple[str, ...]) -> bool:
    """Whether pages of this origin may call."""
    return "*" in origins or origin in origins


def remedy_for(origin: str) -> str:
    """The option that allows pages of this origin to call."""
    return f"--allow-origin {'http://localhost:PORT of a page served there' if origin == NO_ORIGIN else origin[:80]}"


def local_hosts(public_url: str | None) -> frozenset[str]:
    """The host names that a server without keys answers to: those of this machine and of its public URL."""
    own = {"127.0.0.1", "localhost", "::1"}
    return frozenset(own if public_url is None else own | {urlsplit(public_url).hostname or ""})


def _name(host: str) -> str | None:
    """The host name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    """The host name and port of an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
