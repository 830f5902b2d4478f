"""Who may call: one of the server's keys must be shown, wherever it is not said otherwise here."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ..wires.base import Fault
from .config import NO_ORIGIN
from .faults import refusal

# /files/ has addresses that are signed; the rest tells nothing about jobs.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
_OPEN_PREFIX = "/files/"
_BARE_KEY_PREFIX = "/v3/"  # its JavaScript client sends the key alone
_PAGE = "/ui"


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def takes_bare_key(path: str) -> bool:
    """Whether the key may stand alone in its header, without ``Bearer``."""
    return path.startswith(_BARE_KEY_PREFIX)


def asks_by_itself(path: str) -> bool:
    """Whether a path is the page's, which asks for a key with a form: browsers send no header of their own."""
    return path == _PAGE or path.startswith(f"{_PAGE}/")


class Auth:
    """Passes on calls with ``Authorization: Bearer KEY``; without keys of its own, those from this machine's programs.

    Args:
        hosts: without keys, the names under which the server may be called; None is every name. A
            web page that a browser on this machine shows can send calls here as well: they come from
            another origin, or, where a name was bent to this machine, to another host.
        origins: other origins whose pages may call all the same; ``*`` is every page.
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
            return self._strange(scope)
        if asks_by_itself(path):
            return None
        shown = dict(scope["headers"]).get(b"authorization", b"").strip()
        scheme, _, key = shown.partition(b" ")
        if scheme.lower() != b"bearer":
            key = shown if takes_bare_key(path) else b""
        key = key.strip()
        if not shown or (scheme.lower() == b"bearer" and not key):
            return Fault("no_key", "there is no API key; send the header 'Authorization: Bearer KEY'")
        # All keys are compared, so that the time does not tell which was nearest.
        if any([hmac.compare_digest(key, known) for known in self._keys]):
            return None
        return Fault("unauthorized", "the API key is not one of this server's; send 'Authorization: Bearer KEY'")

    def _strange(self, scope: Scope) -> Fault | None:
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
            f"without keys the server answers programs of this machine alone, and this call is of {said}; call it as "
            f"127.0.0.1 or localhost, set keys, or start it with {remedy}--insecure or --public-url",
        )


def may_call(origin: str, origins: tuple[str, ...]) -> bool:
    """Whether a page of this origin is one of those that may call."""
    return "*" in origins or origin in origins


def remedy_for(origin: str) -> str:
    """How to start the server so that a page of this origin may call."""
    return f"--allow-origin {'http://localhost:PORT of a page served there' if origin == NO_ORIGIN else origin[:80]}"


def local_hosts(public_url: str | None) -> frozenset[str]:
    """The names that a server without keys answers to: this machine's own, and that of its public address."""
    own = {"127.0.0.1", "localhost", "::1"}
    return frozenset(own if public_url is None else own | {urlsplit(public_url).hostname or ""})


def _name(host: str) -> str | None:
    """The name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    """The name and port of an origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
