"""HunyuanVideo on your own machines, with one request type and one interface for local and hosted backends.

Importing this package imports neither torch, diffusers nor transformers.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "GenerationContext": "backends.base",
    "GenerationRequest": "schema",
    "GenerationResult": "schema",
    "HunyuanLocalError": "errors",
    "Progress": "schema",
    "RewriteConfig": "config",
    "SafetyConfig": "config",
    "backend_names": "backends.registry",
    "get_backend": "backends.registry",
    "model_names": "config",
    "read_provenance": "provenance",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
