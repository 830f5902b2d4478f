"""The folder of a bench: one process at a time works in it, and only the same bench may continue in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...errors import ConfigError
from ..results.machine_card import card_differences
from ..results.result import BenchResult, Target, load_result
from .scenarios import ScenarioFile

RESULT = "result.json"
_LOCK = ".bench.lock"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Create the folder and lock it against other processes.

    Raises:
        ConfigError: another process holds the lock, the folder has other content, or it is not writable.
    """
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_is_ours(folder)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"output_dir={str(folder)!r}: another process is running this bench; wait for it, or stop it"
        ) from error
    except OSError as error:
        raise ConfigError(f"output_dir={str(folder)!r}: cannot be written: {error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        ConfigError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be created: {error.strerror or error}; check the disk") from error


def _check_is_ours(folder: Path) -> None:
    """Refuse a folder with other content, where the bench would replace reports and videos.

    A bench writes its result file before its first run, so a folder with files but no result is not a bench.
    """
    found = sorted(path.name for path in folder.iterdir() if path.name != _LOCK)
    if found and RESULT not in found:
        raise ConfigError(
            f"output_dir={str(folder)!r}: contains files that are not a bench ({', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}); use a new folder, or the folder of a bench to continue"
        )


def earlier_result(folder: Path) -> BenchResult | None:
    """The result of the bench in this folder so far; None if there is none.

    Raises:
        ConfigError: the file is damaged or not the result of a bench.
    """
    return load_result(folder / RESULT) if (folder / RESULT).exists() else None


def check_same(
    earlier: BenchResult,
    file: ScenarioFile,
    targets: Sequence[Target],
    repeats: int,
    machine: dict[str, Any],
    folder: Path,
) -> None:
    """Refuse to mix the runs of two benches.

    Raises:
        ConfigError: the benches differ; the message lists every difference.
    """
    problems = _file_differences(earlier.scenarios, file.content)
    if repeats < earlier.repeats:
        problems.append(f"repeats: {earlier.repeats} then, {repeats} now; repeats can only increase")
    before, after = ({target.label: target.identity for target in found} for found in (earlier.targets, targets))
    if list(before) != list(after):
        problems.append(f"backends: {', '.join(before)} then, {', '.join(after)} now")
    problems += [
        f"{label}: {before[label]} then, {after[label]} now"
        for label in before.keys() & after.keys()
        if before[label] != after[label]
    ]
    problems += card_differences(earlier.machine, machine)
    if problems:
        raise ConfigError(
            f"output_dir={str(folder)!r}: contains a different bench, and runs of two benches cannot be mixed; "
            f"{'; '.join(problems)}; use another --output-dir"
        )


def _file_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [f"the scenario file has changed in {', '.join(changed)}"] if changed else []
