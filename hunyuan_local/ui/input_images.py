"""Input images of the page: checks and keeps uploads, finds kept images, and renders their thumbnails.

An upload is kept in the data folder until a job uses it, or until housekeeping deletes it. Independent of HTTP. All
methods block on disk access and on decoding; do not call them in an event loop's thread.
"""

from __future__ import annotations

import io
import re
import threading
from functools import lru_cache

from ..images import InputImage, check_image
from ..server.service import VideoService

_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_THUMBNAILS = 256  # about 20 kB each
_MOST_KNOWN = 1000
_LONGEST_SIDE = 480


class PageImages:
    """The input images of one server, by SHA-256."""

    def __init__(self, service: VideoService):
        self._service, self._folder = service, service.folder
        self._known: dict[str, InputImage] = {}  # descriptions of checked images, since checking decodes them
        self._turn = threading.Lock()
        self.thumbnail = lru_cache(_MOST_THUMBNAILS)(self._thumbnail)

    def keep(self, data: bytes) -> InputImage:
        """Check the bytes of an uploaded file, and store them.

        Raises:
            ValueError: they are not an accepted image; states the rule.
            DiskFullError: the disk has too little free space.
            ConfigError: the file cannot be written.
        """
        image = check_image(data)
        self._service.check_disk()
        self._folder.keep_input(image)
        return self._remember(image)

    def find(self, digest: str) -> InputImage:
        """The kept image with this SHA-256; its file is read when it is needed.

        Raises:
            ValueError: there is none; states the rule.
        """
        file = self._folder.image(digest) if _DIGEST.fullmatch(digest) else None
        if file is None or not file.is_file():
            raise ValueError("is not kept on the server any more; choose it again")
        known = self._known.get(digest)
        if known is None:
            try:
                known = self._remember(check_image(file.read_bytes()))
            except OSError as error:
                raise ValueError("cannot be read on the server; choose it again") from error
        return known.with_content(file)

    def _remember(self, image: InputImage) -> InputImage:
        """Add the description of an image to the known ones; returns the image."""
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[image.sha256] = InputImage(image.sha256, image.width, image.height, image.format, image.notes)
        return image

    def _thumbnail(self, digest: str) -> bytes:
        """A small JPEG of a kept image, upright and without transparency; raises as :meth:`find`, and ConfigError.

        Visitors never get the uploaded bytes themselves: a browser might see something else in them.
        """
        image = self.find(digest)
        with self._turn:  # a browser requests many at once, and a large image needs much memory
            pixels = image.pixels()
        pixels.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        small = io.BytesIO()
        pixels.save(small, "jpeg", quality=85)
        return small.getvalue()
