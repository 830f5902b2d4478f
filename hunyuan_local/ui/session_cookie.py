"""Passes to the page: a signed cookie that proves that its holder has shown an API key, until it expires.

The cookie does not contain the key. It is valid only while the server still has that key.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from contextlib import suppress

from itsdangerous import BadSignature, Signer

from ..server.config import DAY_S

TTL_S = round(7 * DAY_S)


class Passes:
    """Issues and checks passes.

    Args:
        keys: the server's API keys, at least one.
        secret: the signing key.
        ttl_s: validity of a pass in seconds.
        clock: seconds since 1970.
    """

    def __init__(self, keys: tuple[str, ...], secret: str, ttl_s: int = TTL_S, clock: Callable[[], float] = time.time):
        self.ttl_s = ttl_s
        self._clock = clock
        self._signers = {
            key.encode(): Signer(secret, salt=key, key_derivation="hmac", digest_method=hashlib.sha256) for key in keys
        }
        # Cookies are shared between the ports of a host: two servers must not overwrite each other's.
        self.cookie = f"hunyuan_local_{hashlib.sha256(secret.encode()).hexdigest()[:12]}"

    def issue(self, shown: str) -> str | None:
        """A pass for this key; None if the key is wrong."""
        given = shown.strip().encode(errors="replace")
        # Compare with all keys, so that the response time reveals nothing.
        matches = [signer for key, signer in self._signers.items() if hmac.compare_digest(given, key)]
        return matches[0].sign(str(int(self._clock()) + self.ttl_s)).decode() if matches else None

    def accept(self, value: str) -> bool:
        """Whether a pass is genuine, its key is still valid, and it has not expired."""
        given = value.encode(errors="replace")
        for signer in self._signers.values():
            with suppress(BadSignature):
                return self._clock() < int(signer.unsign(given))  # a genuine value is an integer
        return False
