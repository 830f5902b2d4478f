"""The machine that figures were taken on, in a line."""

from __future__ import annotations

from hunyuan_local.bench.card import hardware_card
from hunyuan_local.provenance import library_versions


def describe() -> str:
    """Processor, cores and the versions that speed depends on; no name of the machine."""
    cpu, versions = hardware_card()["cpu"], library_versions()
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers"))
    return f"{cpu['model']}, {cpu['cores']} cores; {named}"
