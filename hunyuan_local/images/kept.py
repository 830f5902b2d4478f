"""A folder of input images, each stored once under its SHA-256."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from ..durable import replacing
from ..errors import ConfigError
from .input_image import InputImage

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ImageFolder:
    """Stores images by digest. Several processes may use one folder at the same time."""

    def __init__(self, path: Path):
        self.path = path

    def keep(self, image: InputImage) -> Path:
        """Store an image unless it is there already; returns its file.

        Raises:
            ConfigError: the image's file is not here, or has changed.
            OSError: the file cannot be written.
        """
        file = self.path / image.sha256
        if file.exists():
            file.touch()  # whoever is about to delete it sees that it is needed again
            return file
        content = image.content()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(file, 0o600) as partial:
            partial.write_bytes(content)
        return file

    def fill(self, image: InputImage) -> InputImage:
        """Return the image with its file in this folder, which is read when it is needed.

        Raises:
            ConfigError: the file is missing.
        """
        if image.is_here:
            return image
        file = self.path / image.sha256
        if not file.is_file():
            raise ConfigError(f"image={image.sha256[:12]}: {file} is missing; submit the request with the image again")
        return image.with_content(file)

    def forget(self, digest: str, before: float) -> None:
        """Delete an image, unless :meth:`keep` was called for it after ``before`` (seconds since 1970)."""
        file = self.path / digest
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime < before:
                file.unlink()

    def digests(self) -> list[str]:
        """The digests of all stored images."""
        if not self.path.is_dir():
            return []
        return sorted(file.name for file in self.path.iterdir() if _DIGEST.fullmatch(file.name))
