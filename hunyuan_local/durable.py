"""Files that are whole or not there, whatever dies in between, also after a power cut.

What is unfinished has a hidden name and is locked by the process that writes it. The kernel lets go of the lock when
that process ends, however it ends: what nobody holds was left by a dead process, and :func:`sweep` deletes it.
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

# The second is how versions before named what they saved; they held no lock.
_PARTIAL = re.compile(r"\..+\.(\d+)-[0-9a-f]+(?:\.\w+)?\.partial|(?:latents|prompt)-[0-9a-f]+\.safetensors\.(\d+)\.tmp")
_DRAFT = re.compile(r"\..+\.\d+-[0-9a-f]+\.draft")
_SURELY_LEFT_S = 60.0  # a draft has its name and its lock within a moment

_held: dict[Path, int] = {}  # descriptors of what this process is writing


def begin_partial(target: Path, purpose: str = "", mode: int = 0o666) -> Path:
    """A new, empty, hidden file beside ``target``, held until :func:`discard`; sweeps the folder before.

    Args:
        purpose: a part of the name, such as ``.encode``.
        mode: of the file, less the process's umask.

    Raises:
        OSError: the disk or the folder does not allow it.
    """
    sweep(target.parent)
    stem = f".{target.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}"
    partial, draft = target.with_name(f"{stem}{purpose}.partial"), target.with_name(f"{stem}.draft")
    # Under its own name it is held from the beginning, so that no other process takes it for a leftover.
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
    """Delete a file of :func:`begin_partial` unless it has another name by now, and let go of it."""
    partial.unlink(missing_ok=True)
    if (descriptor := _held.pop(partial, None)) is not None:
        os.close(descriptor)


def discard_all() -> None:
    """Delete every unfinished file of this process, which is about to end."""
    for partial in list(_held):
        with contextlib.suppress(OSError):
            discard(partial)


def sweep(folder: Path) -> None:
    """Delete the unfinished files in a folder that dead processes have left; others stay, and no error is raised."""
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
    """A name beside ``path`` to write to; what stands there at the end replaces ``path``.

    Two processes may do so at once: the later one's file stays.

    Args:
        mode: of the file, less the process's umask.

    Raises:
        OSError: the disk or the folder does not allow it; ``path`` is as it was.
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
    """Return when the names in a folder are on the disk, where it is readable and its file system knows such a thing.

    The file has its name by now, so that nothing here is an error.
    """
    with contextlib.suppress(OSError):
        sync(folder)


def sync(path: Path) -> None:
    """Return when a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class OwnFolder:
    """A new folder for this process alone, which deletes first what dead processes have left beside it.

    Args:
        prefix: with which its name begins, and no other folder's.
        parent: where it is made; None is that of temporary files.

    Attributes:
        path: of the folder, of mode 0700.

    Raises:
        OSError: it cannot be made.
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
        """Delete the folder with all that is in it; does nothing the second time."""
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
    """Whether another process of this number lives that is older than a file: a version before held no lock."""
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
