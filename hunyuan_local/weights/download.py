"""Downloads the files of one commit into the Hub cache, several in parallel, and resumes after an interruption.

Large files are written to ``blobs`` with the suffix ``.part`` until they are complete; the Hub client fetches small
files and creates the links.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub import hf_hub_download, hf_hub_url
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented there

from ..config import ModelConfig
from ..config.network import http_client
from ..errors import ConfigError, ModelLoadError
from ..schema import Progress
from .cache import PART
from .files import CONFIGS, MODEL_INDEX, PIPELINE_CLASSES, SUPPORTED, pipeline_class
from .hub import Hub, RemoteFile, RepositoryListing, translated
from .transfer import TIMEOUT, TransferStoppedError, fetch_file

CONNECTIONS = 4
MARGIN_BYTES = 1_000_000_000  # disk space to leave free after the download, for videos and other programs
_TICK_S = 0.2
_GRACE_S = 2.0  # wait for threads after an interrupt; threads on a stalled connection are abandoned


@dataclass(frozen=True)
class Transfer:
    """Progress of a download in bytes; ``seconds_left`` is None until a rate has been measured."""

    done: int
    total: int
    bytes_per_s: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.bytes_per_s if self.bytes_per_s > 0 else None

    @property
    def progress(self) -> Progress:
        """The progress in percent, as for the other stages of a generation."""
        percent = 100 * self.done // self.total if self.total else 100
        return Progress(stage="download", step=percent, total=100, seconds_left=self.seconds_left)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which need not exist yet."""
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def fetch_configs(config: ModelConfig, hub: Hub, listing: RepositoryListing) -> Path:
    """Download the configs of a repository, a few kilobytes; returns its folder in the cache.

    Raises:
        ConfigError: the repository holds a different kind of model.
        ModelLoadError: the configs cannot be downloaded.
    """
    with translated(config, f"the download from {hub.endpoint} failed", "try again later"):
        for name in CONFIGS:
            _fetch_small(config, hub, listing, name)
    folder = hub.repository(config.model_id) / "snapshots" / listing.commit
    _check_class(config, folder)
    return folder


def _fetch_small(config: ModelConfig, hub: Hub, listing: RepositoryListing, name: str) -> None:
    """Download a small file, or link a large one whose blob exists, with the Hub client."""
    hf_hub_download(
        config.model_id, name, revision=listing.commit, cache_dir=hub.cache, endpoint=hub.endpoint,
        library_name="hunyuan-local",
    )  # fmt: skip


def _check_class(config: ModelConfig, folder: Path) -> None:
    """Refuse a different kind of model before anything large is downloaded."""
    if (found := pipeline_class(folder)) not in PIPELINE_CLASSES:
        raise ConfigError(f"model={config.model_id!r}: is a {found}, not a {SUPPORTED}")


class Download:
    """One download of the missing files of a listing, several in parallel."""

    def __init__(
        self,
        config: ModelConfig,
        hub: Hub,
        listing: RepositoryListing,
        folder: Path,
        free: Callable[[Path], int],
        on_transfer: Callable[[Transfer], None],
    ):
        self._config = config
        self._hub = hub
        self._listing = listing
        self._folder = folder
        self._free = free
        self._on_transfer = on_transfer
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._fetched = 0

    def run(self) -> None:
        """Download the missing files; partial files are kept after an error or an interrupt."""
        missing: dict[str, list[RemoteFile]] = {}  # files by content, since files with equal content share a blob
        for file in sorted(self._listing.files, key=lambda file: file.size):
            if not (self._folder / file.name).is_file():
                missing.setdefault(file.sha256 or file.name, []).append(file)
        needed = sum(same[0].size - self._arrived(same[0]) for same in missing.values())
        self._check_disk(needed)
        total = sum(file.size for file in self._listing.files)
        self._on_transfer(Transfer(total - needed, total))

        self._link_or_fetch(MODEL_INDEX)
        _check_class(self._config, self._folder)
        waiting: queue.SimpleQueue[list[RemoteFile]] = queue.SimpleQueue()
        for same in missing.values():
            waiting.put(same)
        headers = build_hf_headers(library_name="hunyuan-local")
        with http_client(self._hub.endpoint, headers=headers, follow_redirects=True, timeout=TIMEOUT) as client:
            # Daemon threads, so that Ctrl-C does not wait for a stalled connection.
            threads = [
                threading.Thread(target=self._work, args=(client, waiting), daemon=True) for _ in range(CONNECTIONS)
            ]
            self._watch(threads, total - needed, total)
        if self._error is not None:
            raise self._error
        self._on_transfer(Transfer(total, total))

    def _watch(self, threads: list[threading.Thread], had: int, total: int) -> None:
        """Run the threads and report progress."""
        began = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(_TICK_S)
                rate = self._fetched / (time.monotonic() - began)
                self._on_transfer(Transfer(min(total, max(0, had + self._fetched)), total, max(0.0, rate)))
        finally:
            self._stop.set()
            deadline = time.monotonic() + _GRACE_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, client: httpx.Client, waiting: queue.SimpleQueue[list[RemoteFile]]) -> None:
        """The loop of each thread: download files until none are left or a thread has failed."""
        try:
            while not self._stop.is_set():
                same = waiting.get_nowait()
                if same[0].sha256 is not None:
                    self._fetch_blob(client, same[0], same[0].sha256)
                for file in same:
                    self._link_or_fetch(file.name)
                if same[0].sha256 is None:
                    self._count(same[0].size)
        except (queue.Empty, TransferStoppedError):
            return
        except Exception as error:
            with self._lock:
                self._error = self._error or error
            self._stop.set()

    def _fetch_blob(self, client: httpx.Client, file: RemoteFile, sha256: str) -> None:
        """Download a large file to ``blobs``, so that the Hub client only has to link it."""
        blob = self._blob(sha256)
        if blob.exists():
            return
        part = blob.with_name(blob.name + PART)
        part.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(self._config.model_id, file.name, revision=self._listing.commit, endpoint=self._hub.endpoint)
        fetch_file(client, url, part, file.size, sha256, self._count, self._stop)
        part.replace(blob)

    def _link_or_fetch(self, name: str) -> None:
        _fetch_small(self._config, self._hub, self._listing, name)

    def _arrived(self, file: RemoteFile) -> int:
        """Bytes of the file that are in the cache, complete or partial."""
        if file.sha256 is None:
            return 0
        blob = self._blob(file.sha256)
        if blob.exists():
            return file.size
        part = blob.with_name(blob.name + PART)
        return min(file.size, part.stat().st_size) if part.exists() else 0

    def _blob(self, sha256: str) -> Path:
        return self._hub.repository(self._config.model_id) / "blobs" / sha256

    def _check_disk(self, needed: int) -> None:
        folder = self._hub.cache
        free = self._free(folder)
        if needed and free < needed + MARGIN_BYTES:
            raise ModelLoadError(
                f"model={self._config.model_id!r}: the download needs {in_gb(needed)} and "
                f"{in_gb(MARGIN_BYTES)} must stay free, but {folder} has only {in_gb(free)} free; "
                "free some space, or set HF_HOME to a folder on a larger disk"
            )

    def _count(self, count: int) -> None:
        with self._lock:
            self._fetched += count


def in_gb(count: int) -> str:
    """Format bytes in decimal GB, as disks are sold, or in MB if small."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
