"""Passes to the page: a cookie that says that its bearer has shown one of the server's keys, until it expires.

It holds no key. It ends with its key: where that is taken from the server, the pass opens nothing any more.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from ..server.config import DAY_S

TTL_S = round(7 * DAY_S)


class Passes:
    """Makes and checks passes.

    Args:
        keys: of the server, at least one.
        secret: whoever knows it can make passes.
        ttl_s: how long a pass works, in seconds.
        clock: seconds since 1970.
    """

    def __init__(self, keys: tuple[str, ...], secret: str, ttl_s: int = TTL_S, clock: Callable[[], float] = time.time):
        self.ttl_s = ttl_s
        self._keys, self._secret, self._clock = [key.encode() for key in keys], secret.encode(), clock
        # Browsers do not tell the ports of a machine apart: two servers must not overwrite each other's.
        self.cookie = f"hunyuan_local_{hashlib.sha256(self._secret).hexdigest()[:12]}"

    def issue(self, shown: str) -> str | None:
        """A pass for who shows this key; None if it is not one of the server's."""
        given = shown.strip().encode(errors="replace")
        # All keys are compared, so that the time does not tell which was nearest.
        matches = [key for key in self._keys if hmac.compare_digest(given, key)]
        if not matches:
            return None
        expires = int(self._clock()) + self.ttl_s
        return f"{expires}.{self._signature(str(expires), matches[0])}"

    def accept(self, value: str) -> bool:
        """Whether a pass was made here, for a key that is still one, and has not expired."""
        expires, _, signature = value.partition(".")
        given = signature.encode(errors="replace")
        genuine = any([hmac.compare_digest(given, self._signature(expires, key).encode()) for key in self._keys])
        # A genuine one is a number, since only numbers are signed.
        return genuine and self._clock() < int(expires)

    def _signature(self, expires: str, key: bytes) -> str:
        return hmac.new(self._secret, expires.encode(errors="replace") + b"\n" + key, hashlib.sha256).hexdigest()
