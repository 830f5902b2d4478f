"""Fetches and checks the images of submissions before they become jobs, outside the event loop.

Few at a time: a slow host holds one of the downloads, and decoding needs memory. Images that clients uploaded here are
read from the data folder, by an address that only this server can have signed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from anyio import CapacityLimiter, to_thread

from ..image_source import fetch_bytes, is_url
from ..images import InputImage, check_image
from ..jobs.folder import UPLOADS_KEPT_S, DataFolder
from ..outbound.download import PrivateHostError
from ..wires.base import Submission
from ..wires.sent_image import SentFile, SentImage
from .error_answers import NoPlaceError, UploadRefusedError
from .signed_links import UPLOAD_PATH, LinkSigner

FETCH_S = 20.0
FETCHES, DECODINGS = 16, 2
MOST_WAITING = 32
_RETRY_S = 10.0
_UPLOADED = re.compile(re.escape(UPLOAD_PATH).replace(r"\{job_id\}", r"([0-9a-f]{32})"))

T = TypeVar("T")


class ImageReader:
    """Reads images for one server.

    Args:
        allow_private: fetch images from addresses that are not on the public internet too.
    """

    def __init__(self, folder: DataFolder, allow_private: bool):
        self._folder, self._allow_private = folder, allow_private
        self._links = LinkSigner(folder.secret("uploads"), round(UPLOADS_KEPT_S), path=UPLOAD_PATH)
        self._fetches, self._decodings = CapacityLimiter(FETCHES), CapacityLimiter(DECODINGS)
        self._calls: Counter[CapacityLimiter] = Counter()  # running and waiting

    async def with_image(self, submission: Submission) -> Submission:
        """Return the submission with its image, if it has one, fetched and checked.

        Raises:
            InvalidRequestError: the image cannot be fetched or is not an accepted one; names its field.
            NoPlaceError: too many other images are waiting to be read.
        """
        sent = submission.image
        if sent is None:
            return submission
        try:
            return submission.with_image(await self._read(sent))
        except ValueError as error:
            raise sent.problem(str(error)) from error

    def upload_url(self, base_url: str, upload_id: str) -> str:
        """The address for an upload; ``upload_id`` has 32 hexadecimal digits."""
        return self._links.sign(base_url, upload_id)

    def may_upload(self, upload_id: str, expires: str, signature: str) -> bool:
        """Whether this server has signed the address of an upload and it has not expired."""
        return self._links.check(upload_id, expires, signature)

    async def keep(self, upload_id: str, data: bytes) -> None:
        """Check an uploaded image and keep it for submissions.

        Raises:
            UploadRefusedError: the file is not an accepted image.
            NoPlaceError: too many other images are waiting to be read.
        """
        try:
            await self._run(self._decodings, lambda: check_image(data))
        except ValueError as error:
            raise UploadRefusedError(f"the uploaded file cannot be used: {error}") from error
        await to_thread.run_sync(self._folder.keep_upload, upload_id, data)

    async def _read(self, sent: SentImage) -> InputImage:
        source = sent.source
        if isinstance(source, SentFile):
            data = source.content
        elif (uploaded := self._uploaded(source)) is not None:
            data = await to_thread.run_sync(_read_upload, uploaded)
        else:
            limiter = self._fetches if is_url(source) else self._decodings
            data = await self._run(limiter, lambda: self._fetch(source))
        return await self._run(self._decodings, lambda: check_image(data))

    def _fetch(self, source: str) -> bytes:
        try:
            return fetch_bytes(source, allow_private=self._allow_private, limit_s=FETCH_S)
        except ValueError as error:
            if isinstance(error.__cause__, PrivateHostError):
                raise ValueError(f"{error}, or start the server with --allow-private-images") from error
            raise

    def _uploaded(self, source: str) -> Path | None:
        """The file of an image that was uploaded here; None for any other address.

        Raises:
            ValueError: the address has the form of an upload, but is invalid or has expired.
        """
        try:
            url = urlsplit(source[:2048])
            query = {name: values[0] for name, values in parse_qs(url.query, max_num_fields=10).items()}
        except ValueError:
            return None
        found = _UPLOADED.fullmatch(url.path)
        if found is None or not is_url(source):
            return None
        if not self._links.check(found[1], query.get("expires", ""), query.get("signature", "")):
            raise ValueError("this address of an upload is invalid or has expired; upload the image again")
        return self._folder.upload(found[1])

    async def _run(self, limiter: CapacityLimiter, do: Callable[[], T]) -> T:
        if self._calls[limiter] >= limiter.total_tokens + MOST_WAITING:
            raise NoPlaceError("too many images are being read; try again later", _RETRY_S)
        self._calls[limiter] += 1
        try:
            return await to_thread.run_sync(do, limiter=limiter)
        finally:
            self._calls[limiter] -= 1


def _read_upload(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError("nothing was uploaded to this address, or it was deleted; upload the image again") from error
