"""The folder of a bench: one process at a time works in it, and goes on only with what is the same bench."""

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
    """Make the folder, and keep other processes from working in it.

    Raises:
        ConfigError: another one does, it holds something else, or it cannot be written.
    """
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_is_ours(folder)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"output_dir={str(folder)!r}: another process works on this bench; wait for it, or stop it"
        ) from error
    except OSError as error:
        raise ConfigError(f"output_dir={str(folder)!r}: cannot be written: {error}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror or error}; check the disk") from error


def _check_is_ours(folder: Path) -> None:
    """Refuse a folder of something else, in which reports and videos would be replaced.

    A bench writes its result before its first run.
    """
    found = sorted(path.name for path in folder.iterdir() if path.name != _LOCK)
    if found and RESULT not in found:
        raise ConfigError(
            f"output_dir={str(folder)!r}: holds something else than a bench ({', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}); give a new folder, or that of a bench to go on with"
        )


def earlier_result(folder: Path) -> BenchResult | None:
    """What the bench in this folder has come to; None if none was begun.

    Raises:
        ConfigError: the file is there and not a bench's, or damaged.
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
        ConfigError: names everything that differs.
    """
    problems = _file_differences(earlier.scenarios, file.content)
    if repeats < earlier.repeats:
        problems.append(f"repeats: {earlier.repeats} then, {repeats} now; they may grow, not fall")
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
            f"output_dir={str(folder)!r}: holds another bench, whose runs cannot be mixed with these; "
            f"{'; '.join(problems)}; give another --output-dir"
        )


def _file_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [f"the scenario file has changed in {', '.join(changed)}"] if changed else []
