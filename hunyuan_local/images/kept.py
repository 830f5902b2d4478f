"""A folder of input images, each stored once under its SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..durable import replacing
from ..errors import ConfigError
from .input_image import InputImage


class ImageFolder:
    """Stores images by digest. Several processes may use one folder at the same time."""

    def __init__(self, path: Path):
        self.path = path

    def keep(self, image: InputImage) -> Path:
        """Store an image unless it is there already; returns its file.

        Raises:
            ConfigError: only the description of the image is here.
            OSError: the file cannot be written.
        """
        file = self.path / image.sha256
        if file.exists():
            return file
        if image.data is None:
            raise ConfigError(f"image={image.sha256[:12]}…: only its description is here; give the file again")
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            partial.write_bytes(image.data)
        return file

    def fill(self, image: InputImage) -> InputImage:
        """Return the image with the content of its file.

        Raises:
            ConfigError: the file is missing or damaged.
        """
        if image.data is not None:
            return image
        file = self.path / image.sha256
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"image={image.sha256[:12]}…: {file} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise ConfigError(f"image={image.sha256[:12]}…: {file} is damaged; submit the request with the image again")
        return image.with_data(data)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Delete all images but these."""
        wanted = set(digests)
        if self.path.is_dir():
            for file in self.path.iterdir():
                if len(file.name) == 64 and file.name not in wanted:
                    file.unlink(missing_ok=True)
