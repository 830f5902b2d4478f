"""Who may call: one of the server's keys must be shown, wherever it is not said otherwise here."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from ..wires.base import Fault
from .faults import refusal

# /files/ has addresses that are signed; the rest tells nothing about jobs.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/docs", "/openapi.json"})
_OPEN_PREFIX = "/files/"
_BARE_KEY_PREFIX = "/v3/"  # its JavaScript client sends the key alone


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIX)


def takes_bare_key(path: str) -> bool:
    """Whether the key may stand alone in its header, without ``Bearer``."""
    return path.startswith(_BARE_KEY_PREFIX)


class Auth:
    """Passes on calls with ``Authorization: Bearer KEY``; without keys of its own, every call."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]):
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(scope) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope["path"], fault)(scope, receive, send)

    def _fault(self, scope: Scope) -> Fault | None:
        path = scope["path"]
        if not self._keys or is_open(path):
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
