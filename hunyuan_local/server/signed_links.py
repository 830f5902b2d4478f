"""Signed URLs of finished videos and of uploads: they need no API key, cannot be guessed, and expire."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from itsdangerous import Signer
from itsdangerous.encoding import base64_encode

PATH = "/files/{job_id}.mp4"
UPLOAD_PATH = "/files/uploads/{job_id}"


class LinkSigner:
    """Creates and checks signed URLs.

    Args:
        secret: the signing key.
        ttl_s: validity of a URL in seconds.
        clock: seconds since 1970.
        path: the path of the URLs; another path needs another secret.
    """

    def __init__(self, secret: str, ttl_s: int, clock: Callable[[], float] = time.time, path: str = PATH):
        self.ttl_s, self._path = ttl_s, path
        # No key derivation, so that URLs signed by earlier versions (hexadecimal signatures) stay valid.
        self._signer = Signer(secret, key_derivation="none", digest_method=hashlib.sha256)
        self._clock = clock

    def sign(self, base_url: str, job_id: str) -> str:
        """The absolute URL of a job's video, valid for ``ttl_s`` seconds from now.

        The expiry is rounded up to a multiple of ttl_s / 60. So the URL, and the entity tag of responses that contain
        it, stay the same for a while, and conditional requests work.
        """
        step_s = max(1, self.ttl_s // 60)
        expires = str(-(-(int(self._clock()) + self.ttl_s) // step_s) * step_s)
        signature = self._signer.get_signature(_signed(job_id, expires)).decode()
        return f"{base_url.rstrip('/')}{self._path.format(job_id=job_id)}?expires={expires}&signature={signature}"

    def check(self, job_id: str, expires: str, signature: str) -> bool:
        """Whether this server signed the URL for this job and it has not expired; takes constant time."""
        # If the signature is genuine, ``expires`` is an integer.
        genuine = self._signer.verify_signature(_signed(job_id, expires), _in_base64(signature))
        return genuine and self._clock() < int(expires)


def _signed(job_id: str, expires: str) -> bytes:
    return f"{job_id}\n{expires}".encode(errors="replace")


def _in_base64(signature: str) -> str | bytes:
    """The signature in base64; earlier versions wrote it in hexadecimal digits."""
    try:
        return base64_encode(bytes.fromhex(signature))
    except ValueError:
        return signature
