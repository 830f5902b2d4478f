"""Freed memory kept for the next tensor, measured by page faults."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

# Allocates and frees a tensor of 64 MiB repeatedly; prints the page faults of nine of them. Twenty come before: the
# first ones cannot reuse the memory of earlier ones while small blocks are allocated there.
# One thread: OpenMP threads have separate stacks and allocations.
MEASURE = """
import json, resource, torch
torch.set_num_threads(1)
from hunyuan_local.pipeline.memory.allocator import give_back_memory, keep_freed_memory

def pages(tensors):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages(20)
found = {"as it is": pages(9)}
assert keep_freed_memory()
pages(20)
found["kept"] = pages(9)
give_back_memory()
found["given back"] = pages(1)
print(json.dumps(found))
"""
# Pages of 4 KiB; a system with larger pages has fewer faults.
PAGES = 64 * 2**20 // 4096

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is what is set")


@pytest.fixture(scope="module")
def pages(starts_process: None) -> dict[str, int]:
    """Page faults of one process before memory was kept, while it was kept, and after it was given back."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_kept_block_is_used_again_without_fetching_its_pages(pages: dict[str, int]) -> None:
    assert pages["kept"] < PAGES


def test_without_it_each_tensor_fetches_its_pages(pages: dict[str, int]) -> None:
    assert pages["as it is"] > 8 * PAGES


def test_what_is_kept_can_be_given_back(pages: dict[str, int]) -> None:
    assert pages["given back"] > PAGES / 2
