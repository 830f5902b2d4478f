"""Atomic file writes: a file is complete or absent, even after a crash or a power failure.

Unfinished files have a hidden name and are locked by the process that writes them. The kernel releases the lock when
the process ends for any reason, so an unlocked unfinished file belongs to a dead process, and :func:`sweep` deletes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

# The second alternative matches files of older versions, which did not lock them.
_PARTIAL = re.compile(r"\..+\.(\d+)-[0-9a-f]+(?:\.\w+)?\.partial|(?:latents|prompt)-[0-9a-f]+\.safetensors\.(\d+)\.tmp")
_DRAFT = re.compile(r"\..+\.\d+-[0-9a-f]+\.draft")
_SURELY_LEFT_S = 60.0  # a draft is locked and renamed within milliseconds

_held: dict[Path, int] = {}  # descriptors of the unfinished files of this process


def begin_partial(target: Path, purpose: str = "", mode: int = 0o666) -> Path:
    """Create an empty hidden file next to ``target``, locked until :func:`discard`; sweeps the folder first.

    Args:
        purpose: part of the file name, such as ``.encode``.
        mode: file mode before the umask is applied.

    Raises:
        OSError: the disk or the folder does not allow it.
    """
    sweep(target.parent)
    stem = f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}"
    partial, draft = target.with_name(f"{stem}{purpose}.partial"), target.with_name(f"{stem}.draft")
    # Lock the file under a draft name first: a partial file without a lock would look abandoned to other processes.
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    try:
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(draft, partial)
    except BaseException:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        raise
    _held[partial] = descriptor
    return partial


def discard(partial: Path) -> None:
    """Release a file of :func:`begin_partial`, and delete it unless it was renamed.

    A file that cannot be deleted is left to :func:`sweep`: this must fail neither finished work nor hide an error.
    """
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)
    if (descriptor := _held.pop(partial, None)) is not None:
        os.close(descriptor)


def discard_all() -> None:
    """Delete all unfinished files of this process before it ends."""
    for partial in list(_held):
        discard(partial)


def sweep(folder: Path) -> None:
    """Delete unfinished files of dead processes in a folder; never raises an error."""
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
        for name in names:
            if found := _PARTIAL.fullmatch(name):
                _delete_unless_held(folder / name, int(found[1] or found[2]))
            elif _DRAFT.fullmatch(name):
                with contextlib.suppress(OSError):
                    if time.time() - (folder / name).stat().st_mtime > _SURELY_LEFT_S:
                        (folder / name).unlink()


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; its content replaces ``path`` at the end.

    Two processes may do this at the same time; the last one wins.

    Args:
        mode: file mode before the umask is applied.

    Raises:
        OSError: the disk or the folder does not allow it; ``path`` is unchanged.
    """
    partial = begin_partial(path, mode=mode)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        discard(partial)
    sync_names(path.parent)


def sync_names(folder: Path) -> None:
    """Flush a folder's directory entries to disk, if the folder and its file system allow it.

    Errors are ignored, since the file itself is already in place.
    """
    with contextlib.suppress(OSError):
        sync(folder)


def sync(path: Path) -> None:
    """Flush a file's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OwnFolder:
    """A private folder of this process; creating it first deletes folders that dead processes left behind.

    Args:
        prefix: start of the folder's name, used for nothing else.
        parent: parent folder; None uses the folder for temporary files.

    Attributes:
        path: path of the folder, which has mode 0700.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, prefix: str, parent: Path | None = None):
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        for left in parent.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                _delete_folder_unless_held(left)
        draft = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
        self._descriptor = os.open(draft, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = draft.rename(draft.with_name(draft.name[1:]))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the folder and its content; safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _delete_unless_held(path: Path, pid: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _may_write(pid, os.fstat(descriptor).st_mtime):
                path.unlink()
        finally:
            os.close(descriptor)


def _may_write(pid: int, written_at: float) -> bool:
    """Whether a live process with this pid is older than the file, and may be an old version that does not lock it."""
    if pid == os.getpid():
        return False
    try:
        return os.stat(f"/proc/{pid}").st_ctime <= written_at
    except OSError:
        return False


def _delete_folder_unless_held(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
