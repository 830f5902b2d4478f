"""The GPUs of the ranks, without a CUDA context in the backend's own process.

To ask a GPU for its free memory creates a CUDA context, which takes about 0.5 GiB of that GPU until the process ends:
for as long as the ranks need the memory. A short-lived process asks instead; its program is this module.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

from ...errors import RankFailedError
from ...planner import Machine, detect_machine
from ...planner.machine import has_cuda_driver, machine_with_gpu, machine_without_gpu
from ...planner.memory import CUDA_CONTEXT

_PROGRAM = "hunyuan_local.backends.multi_gpu.devices"
_TIMEOUT_S = 300.0  # for importing torch from a slow disk


def available_machine(ranks: int) -> Machine:
    """This machine with the GPU that has the least available memory of those that the ranks use.

    Args:
        ranks: each uses one GPU, in torch's order.

    Raises:
        RankFailedError: the process that asks has failed.
    """
    if not has_cuda_driver():
        return detect_machine()  # does not import torch
    devices = _ask()[:ranks]
    if not devices:
        return machine_without_gpu()
    # The process that asked has a context too, and the plan includes one.
    available, least = min(
        ((min(found["memory_bytes"], found["free_bytes"] + CUDA_CONTEXT), found) for found in devices),
        key=lambda pair: pair[0],
    )
    machine = machine_with_gpu(least["name"], least["memory_bytes"], tuple(least["capability"]), least.get("rocm"))
    return replace(machine, gpu_memory_bytes=available)


def _ask() -> list[dict[str, Any]]:
    """Name, total and free memory in bytes, and compute capability of each visible GPU."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", _PROGRAM], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    else:
        lines = done.stdout.decode(errors="replace").splitlines()
        if done.returncode == 0 and lines:
            found: list[dict[str, Any]] = json.loads(lines[-1])
            return found
        problem = (done.stderr.decode(errors="replace").strip().splitlines() or ["no answer"])[-1]
    raise RankFailedError(
        f"the GPUs cannot be asked for their free memory: {problem}; check nvidia-smi, or name a --profile, which "
        "needs no plan"
    )


def main() -> None:
    """Print the visible GPUs as JSON, in the last line."""
    from ...pipeline.memory.device import cuda_devices, free_bytes

    print(json.dumps([asdict(found) | {"free_bytes": free_bytes(index)} for index, found in enumerate(cuda_devices())]))


if __name__ == "__main__":
    main()
