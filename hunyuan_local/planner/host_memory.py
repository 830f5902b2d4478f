"""Main memory of this machine: all of it, what a new process can have now, and the peak of this process."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Limit, usage, and the key of memory.stat for files in the page cache that the kernel drops first, in both versions.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def total_bytes() -> int | None:
    """Main memory of this machine, or the lowest limit of this process's control groups; None if neither is known."""
    found = [limit for limit, _ in _limits()]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def available_bytes() -> int | None:
    """Main memory that this process can have, with what it holds already; ``total_bytes`` where that is unknown.

    ``MemAvailable`` of the kernel, and for each control group its limit less its usage, without files that the kernel
    drops from the page cache; the lowest of them, plus this process's resident set.
    """
    total = total_bytes()
    found = [limit - used for limit, used in _limits()]
    if (available := _number(PROC / "meminfo", r"^MemAvailable:\s+(\d+) kB")) is not None:
        found.append(available * 1024)
    if not found or total is None:
        return total
    own = (_number(PROC / "self" / "status", r"^VmRSS:\s+(\d+) kB") or 0) * 1024
    return max(0, min(total, min(found) + own))


def reset_resident_peak() -> bool:
    """Reset the kernel's peak of the resident set (man proc_pid_clear_refs); return whether that worked."""
    with contextlib.suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")
        return True
    return False


def resident_peak() -> int | None:
    """Peak of this process's resident set in bytes since the reset, mapped files included; None if unknown."""
    found = _number(PROC / "self" / "status", r"^VmHWM:\s+(\d+) kB")
    return None if found is None else found * 1024


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and usage in bytes of each control group of this process that has a limit, from its own up to the root."""
    for folder in _groups():
        for limit_file, usage_file, cached in _FILES:
            limit = _number(folder / limit_file, r"^(\d+)$")
            if limit is None or limit >= 2**60:  # version 1 writes a huge number for no limit
                continue
            used = _number(folder / usage_file, r"^(\d+)$") or 0
            yield limit, max(0, used - (_number(folder / "memory.stat", rf"^{cached} (\d+)$") or 0))


def _groups() -> Iterator[Path]:
    """Folders of the control groups that limit this process's memory; in a container, its own is the root."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = {CGROUPS, CGROUPS / "memory"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        own = root / path.lstrip("/")
        found |= {own, *(parent for parent in own.parents if parent.is_relative_to(root))}
    return iter(sorted(found, reverse=True))


def _number(path: Path, pattern: str) -> int | None:
    try:
        match = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None
