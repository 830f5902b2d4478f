"""Passes to the page: a cookie that says that its bearer has shown one of the server's keys, until it expires.

It holds no key. It ends with its key: where that is taken from the server, the pass opens nothing any more.
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
    """Makes and checks passes.

    Args:
        keys: of the server, at least one.
        secret: whoever knows it can make passes.
        ttl_s: how long a pass works, in seconds.
        clock: seconds since 1970.
    """

    def __init__(self, keys: tuple[str, ...], secret: str, ttl_s: int = TTL_S, clock: Callable[[], float] = time.time):
        self.ttl_s = ttl_s
        self._clock = clock
        self._signers = {
            key.encode(): Signer(secret, salt=key, key_derivation="hmac", digest_method=hashlib.sha256) for key in keys
        }
        # Browsers do not tell the ports of a machine apart: two servers must not overwrite each other's.
        self.cookie = f"hunyuan_local_{hashlib.sha256(secret.encode()).hexdigest()[:12]}"

    def issue(self, shown: str) -> str | None:
        """A pass for who shows this key; None if it is not one of the server's."""
        given = shown.strip().encode(errors="replace")
        # All keys are compared, so that the time does not tell which was nearest.
        matches = [signer for key, signer in self._signers.items() if hmac.compare_digest(given, key)]
        return matches[0].sign(str(int(self._clock()) + self.ttl_s)).decode() if matches else None

    def accept(self, value: str) -> bool:
        """Whether a pass was made here, for a key that is still one, and has not expired."""
        given = value.encode(errors="replace")
        for signer in self._signers.values():
            with suppress(BadSignature):
                return self._clock() < int(signer.unsign(given))  # only numbers are signed
        return False
