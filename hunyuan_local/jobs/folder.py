"""The file layout of a data folder. Paths are built from stored job ids, never from user input."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..backends.base import preview_path
from ..config.places import default_data_dir
from ..durable import replacing
from ..errors import ConfigError
from ..images import ImageFolder, InputImage
from ..schema import GenerationRequest
from .job import Job
from .store import JobStore

# Submissions may name an uploaded image for this time; each job has its own copy.
UPLOADS_KEPT_S = 3600.0


class DataFolder:
    """Database, videos, unfinished videos and secrets under one folder.

    Args:
        root: created if it does not exist.

    Raises:
        ConfigError: the folder cannot be created or is not writable.
    """

    def __init__(self, root: Path | None = None):
        self.root = default_data_dir() if root is None else Path(root)
        try:
            for folder in (self.root, self.root / "videos", self.root / "unfinished"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts and videos are private to the user
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(f"{folder} is not writable")
        except OSError as error:
            raise ConfigError(
                f"data_dir={str(self.root)!r}: cannot be used: {error}; give a writable folder "
                "with --data-dir or HUNYUAN_LOCAL_DATA_DIR"
            ) from error

    def store(self) -> JobStore:
        """Open the job store; raises what :class:`JobStore` raises."""
        return JobStore(self.root / "jobs.sqlite3")

    def video(self, job: Job) -> Path:
        """The finished video of a job."""
        return self.root / "videos" / f"{job.job_id}.mp4"

    def preview(self, job: Job) -> Path:
        """The preview image of an unfinished video, if its worker writes one."""
        return preview_path(self.video(job))

    def unfinished(self, job: Job) -> Path:
        """The folder with the saved state of an unfinished video."""
        return self.root / "unfinished" / job.job_id

    def keep_image(self, request: GenerationRequest) -> None:
        """Store a request's input image, if it has one, before the request becomes a job.

        Raises:
            ConfigError: the image's file is not here, or cannot be written.
        """
        if request.image is not None:
            self.keep_input(request.image)

    def keep_input(self, image: InputImage) -> None:
        """Store an image for a job to come; raises as :meth:`keep_image`."""
        try:
            self._images.keep(image)
        except OSError as error:
            raise ConfigError(f"image={image.sha256[:12]}: cannot be stored in {self._images.path}: {error}") from error

    def image(self, digest: str) -> Path:
        """The file of the input image with this SHA-256, which may not exist."""
        return self._images.path / digest

    def with_image(self, request: GenerationRequest) -> GenerationRequest:
        """Return a stored request with the file of its input image, if it has one.

        Raises:
            ConfigError: the image's file is missing.
        """
        if request.image is None or request.image.is_here:
            return request
        return request.replace(image=self._images.fill(request.image))

    def forget_image(self, digest: str, before: float) -> None:
        """Delete the input image with this digest, unless it was stored again after ``before`` (seconds since 1970)."""
        self._images.forget(digest, before)

    def image_digests(self) -> list[str]:
        """The digests of all stored input images."""
        return self._images.digests()

    def upload(self, upload_id: str) -> Path:
        """An uploaded image."""
        return self._uploads / upload_id

    def keep_upload(self, upload_id: str, content: bytes) -> None:
        """Store an uploaded image.

        Raises:
            ConfigError: it cannot be written.
        """
        path = self.upload(upload_id)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with replacing(path, 0o600) as partial:
                partial.write_bytes(content)
        except OSError as error:
            raise ConfigError(f"{path}: cannot store the upload: {error}; check the disk") from error

    def forget_uploads(self, before: float) -> None:
        """Delete uploads stored before ``before`` (seconds since 1970)."""
        for path in self._uploads.glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    @property
    def _uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def _images(self) -> ImageFolder:
        return ImageFolder(self.root / "images")

    @property
    def prompts(self) -> Path:
        """The folder of prompts encoded in advance; created on first use."""
        return self.root / "prompts"

    def remove(self, job: Job) -> None:
        """Delete all files of a job that exist."""
        for path in self.video(job).parent.glob(f"{job.job_id}.*"):  # the video, its preview and its JSON sidecar
            path.unlink(missing_ok=True)
        shutil.rmtree(self.unfinished(job), ignore_errors=True)

    def old_files(self, before: float) -> Iterator[Path]:
        """Videos, finished or not, and saved states last changed before ``before`` (seconds since 1970)."""
        for path in [*(self.root / "videos").iterdir(), *(self.root / "unfinished").iterdir()]:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if path.stat().st_mtime < before:
                    yield path

    def of_unfinished_files(self) -> list[Path]:
        """The folders in which a worker may have left partial files."""
        return [self.root / "videos", self._uploads, self.prompts, *(self.root / "unfinished").iterdir()]

    def delete(self, path: Path) -> None:
        """Delete one of :meth:`old_files`."""
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Free disk space."""
        return shutil.disk_usage(self.root).free

    def secret(self, name: str) -> str:
        """A random string of 64 hexadecimal digits, created on first use, readable only by its owner."""
        path = self.root / f"{name}.secret"
        try:
            if not path.exists():
                draft = self.root / f".{name}.{secrets.token_hex(8)}"
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secrets.token_hex(32))
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(draft, path)  # fails if another process has created it first
                except FileExistsError:
                    pass  # use the other process's secret
                finally:
                    draft.unlink()
            return path.read_text()
        except OSError as error:
            raise ConfigError(f"{path}: cannot store the secret: {error}; check the folder's permissions") from error
