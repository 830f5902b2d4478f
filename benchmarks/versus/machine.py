"""The machine: a line that describes it, and the precision in which it computes."""

from __future__ import annotations

from hunyuan_local.bench.results.machine_card import hardware_card
from hunyuan_local.provenance import library_versions


def describe() -> str:
    """Processor, cores and the versions that affect speed, without the machine's name."""
    cpu, versions = hardware_card()["cpu"], library_versions()
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers"))
    return f"{cpu['model']}, {cpu['cores']} cores; {named}"


def fast_precision() -> str:
    """bfloat16, or float32 if the processor only emulates bfloat16."""
    from hunyuan_local.pipeline.memory.device import cpu_has_bfloat16

    return "bfloat16" if cpu_has_bfloat16() else "float32"
