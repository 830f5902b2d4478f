"""Freed memory that is kept for the next tensor: seen by the pages that the kernel has to fetch."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# A tensor of 64 MiB is made and let go again and again; prints the pages that were fetched for the last nine. The first
# ones find no room where the others were, as long as small blocks settle there.
# One thread: those of OpenMP have stacks, and allocations, of their own.
MEASURE = """
import resource, sys, torch
torch.set_num_threads(1)
from hunyuan_local.pipeline.allocator import give_back_memory, keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
for _ in range(20):
    torch.ones(16 * 2**20)
if "give-back" in sys.argv:
    give_back_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1 if "give-back" in sys.argv else 9):
    torch.ones(16 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
# Of 4 KiB; a system with larger ones fetches fewer.
PAGES = 64 * 2**20 // 4096

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is what is set")


def pages(*arguments: str) -> int:
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def test_a_kept_block_is_used_again_without_fetching_its_pages() -> None:
    assert pages("keep") < PAGES


def test_without_it_each_tensor_fetches_its_pages() -> None:
    assert pages() > 8 * PAGES


def test_what_is_kept_can_be_given_back() -> None:
    assert pages("keep", "give-back") > PAGES / 2
