"""Addresses of finished videos that need no key: unguessable, and good for a limited time."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

PATH = "/files/{job_id}.mp4"


class LinkSigner:
    """Makes and checks signed addresses.

    Args:
        secret: whoever knows it can make addresses.
        ttl_s: how long an address works, in seconds.
        clock: seconds since 1970.
    """

    def __init__(self, secret: str, ttl_s: int, clock: Callable[[], float] = time.time):
        self.ttl_s = ttl_s
        self._key, self._clock = secret.encode(), clock

    def sign(self, base_url: str, job_id: str) -> str:
        """The absolute address of a job's video, from now on for its time."""
        expires = int(self._clock()) + self.ttl_s
        query = f"expires={expires}&signature={self._signature(job_id, str(expires))}"
        return f"{base_url.rstrip('/')}{PATH.format(job_id=job_id)}?{query}"

    def check(self, job_id: str, expires: str, signature: str) -> bool:
        """Whether an address was made here for this job and still works; takes equally long for any signature."""
        expected = self._signature(job_id, expires)
        genuine = hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
        # A genuine one is a number, since only numbers are signed.
        return genuine and self._clock() < int(expires)

    def _signature(self, job_id: str, expires: str) -> str:
        return hmac.new(self._key, f"{job_id}\n{expires}".encode(errors="replace"), hashlib.sha256).hexdigest()
