"""The package's extras: which modules they install, and errors if one is missing; imports none of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import ConfigError
from .models import LoraConfig

# Required modules of each extra.
MODULES = {
    "bench": ("matplotlib", "scipy"),
    "lora": ("peft",),
    "ray": ("ray",),
    "server": ("fastapi", "uvicorn"),
    "ui": ("gradio", "fastapi", "uvicorn"),
}


def is_installed(extra: str) -> bool:
    """Whether all modules of an extra are installed."""
    return not _missing(extra)


def require_extra(extra: str, what: str, remedy: str = "") -> None:
    """Raise an error early if an extra is not installed.

    Args:
        extra: a key of :data:`MODULES`.
        what: start of the message, such as ``the server``.
        remedy: an alternative for the user.

    Raises:
        ConfigError: a module of the extra is not installed.
    """
    if missing := _missing(extra):
        lacks = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        other = f"; or {remedy}" if remedy else ""
        raise ConfigError(f"{what} needs the extra '{extra}': pip install 'hunyuan-local[{extra}]' ({lacks}){other}")


def require_ray() -> None:
    """Require the extra for ``--executor ray``."""
    require_extra("ray", "executor='ray'", "leave out --executor to use worker processes on this machine")


def require_peft(loras: Sequence[LoraConfig]) -> None:
    """Require the extra for LoRAs on quantised weights, into which they cannot be merged."""
    paths = [lora.path for lora in loras]
    require_extra("lora", f"lora={paths} on a quantised transformer", "use a profile without quantization")


def _missing(extra: str) -> list[str]:
    return [module for module in MODULES[extra] if importlib.util.find_spec(module) is None]
