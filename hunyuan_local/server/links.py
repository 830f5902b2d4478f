"""Addresses of finished videos that need no key: unguessable, and good for a limited time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from itsdangerous import Signer
from itsdangerous.encoding import base64_encode

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
        # The key itself signs, as it did in the addresses whose signature is hexadecimal: they still work.
        self._signer = Signer(secret, key_derivation="none", digest_method=hashlib.sha256)
        self._clock = clock

    def sign(self, base_url: str, job_id: str) -> str:
        """The absolute address of a job's video, from now on for its time.

        The end is rounded up to a sixtieth of that time: within it the address stays the same, and so do answers
        that name it, for callers who ask only for what has changed.
        """
        step_s = max(1, self.ttl_s // 60)
        expires = str(-(-(int(self._clock()) + self.ttl_s) // step_s) * step_s)
        signature = self._signer.get_signature(_signed(job_id, expires)).decode()
        return f"{base_url.rstrip('/')}{PATH.format(job_id=job_id)}?expires={expires}&signature={signature}"

    def check(self, job_id: str, expires: str, signature: str) -> bool:
        """Whether an address was made here for this job and still works; takes equally long for any signature."""
        # A genuine one is a number, since only numbers are signed.
        genuine = self._signer.verify_signature(_signed(job_id, expires), _in_base64(signature))
        return genuine and self._clock() < int(expires)


def _signed(job_id: str, expires: str) -> bytes:
    return f"{job_id}\n{expires}".encode(errors="replace")


def _in_base64(signature: str) -> str | bytes:
    """The signature as it is written now; addresses of earlier versions have it in hexadecimal digits."""
    try:
        return base64_encode(bytes.fromhex(signature))
    except ValueError:
        return signature
