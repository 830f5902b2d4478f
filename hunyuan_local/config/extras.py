"""What the package's extras bring, and the refusal of what needs one that is not installed; imports none of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ..errors import ConfigError
from .models import LoraConfig

# Modules by extra, of those that a command cannot do without.
MODULES = {
    "bench": ("matplotlib", "scipy"),
    "lora": ("peft",),
    "ray": ("ray",),
    "server": ("fastapi", "uvicorn"),
    "ui": ("gradio", "fastapi", "uvicorn"),
}


def is_installed(extra: str) -> bool:
    """Whether all modules of an extra can be found."""
    return not _missing(extra)


def require_extra(extra: str, what: str, remedy: str = "") -> None:
    """Refuse at once what would fail late.

    Args:
        extra: one of :data:`MODULES`.
        what: the beginning of the message, such as ``the server``.
        remedy: what else the user can do.

    Raises:
        ConfigError: a module of the extra is not installed.
    """
    if missing := _missing(extra):
        lacks = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        other = f"; or {remedy}" if remedy else ""
        raise ConfigError(f"{what} needs the extra '{extra}': pip install 'hunyuan-local[{extra}]' ({lacks}){other}")


def require_ray() -> None:
    """See :func:`require_extra`, for ``--executor ray``."""
    require_extra("ray", "executor='ray'", "leave out --executor for worker processes of this machine")


def require_peft(loras: Sequence[LoraConfig]) -> None:
    """See :func:`require_extra`, for LoRAs that cannot be merged into the weights."""
    paths = [lora.path for lora in loras]
    require_extra("lora", f"lora={paths} on a quantised transformer", "use a profile without quantization")


def _missing(extra: str) -> list[str]:
    return [module for module in MODULES[extra] if importlib.util.find_spec(module) is None]
