"""The machine card of a check: what its results depend on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hunyuan_local.bench.results.machine_card import hardware_card
from hunyuan_local.planner import Machine
from hunyuan_local.planner.cards import recognise


def describe(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill ``record`` with the card of this machine; runs in a separate process, because it takes GPU memory."""
    record |= hardware_card()


def machine_of(card: dict[str, Any]) -> Machine:
    """The planner's description of the machine, with the GPU memory that other programs leave free."""
    gpu, libraries = card["gpu"], frozenset(card["libraries"])
    spec = None
    if gpu is not None:
        vendor = "amd" if gpu.get("rocm") else "nvidia"
        spec = recognise(gpu["name"], gpu["memory_bytes"], tuple(gpu["compute_capability"]), vendor)
    return Machine(card["available_gpu_bytes"], card["host_memory_bytes"], spec, libraries)


def file_name(card: dict[str, Any]) -> str:
    """File name from the GPU's name in lower case with dashes, such as ``nvidia-h100-80gb-hbm3.json``."""
    title = f"cpu {card['cpu']['model']}" if card["gpu"] is None else card["gpu"]["name"]
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".json"
