"""Where things lie: the package, its data, what a user's commands remember; and whether the network may be used."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_state_path

GIB = 2**30  # bytes
PACKAGE_DIR = Path(__file__).resolve().parents[1]


def configs_dir() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    inside = PACKAGE_DIR / "configs"
    return inside if inside.is_dir() else PACKAGE_DIR.parent / "configs"


def is_offline() -> bool:
    """True if the environment forbids downloads (``HF_HUB_OFFLINE``, ``TRANSFORMERS_OFFLINE``)."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def state_dir() -> Path:
    """The folder of what this user's commands remember: ``HUNYUAN_LOCAL_STATE_DIR``, or the system's convention."""
    root = os.environ.get("HUNYUAN_LOCAL_STATE_DIR")
    return Path(root) if root else user_state_path("hunyuan-local")


def cache_dir() -> Path:
    """The folder of what can be made again at any time: ``HUNYUAN_LOCAL_CACHE_DIR``, or the system's convention."""
    root = os.environ.get("HUNYUAN_LOCAL_CACHE_DIR")
    return Path(root) if root else user_cache_path("hunyuan-local")
