"""All uses of undocumented members of huggingface_hub, which an upgrade may remove or change.

Tested with 2.4; ``tests/test_private_members.py`` fails by name for each member that is gone. The cache layout is
documented and used in :mod:`hunyuan_local.weights.cache`.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling

__all__ = ["RepoSibling", "cache_folder", "default_revision", "endpoint", "home_folder"]


def endpoint() -> str:
    """The address of the Hub, set by ``HF_ENDPOINT``; read at each call."""
    return constants.ENDPOINT


def home_folder() -> Path:
    """The folder of the Hub client, set by ``HF_HOME``."""
    return Path(constants.HF_HOME)


def cache_folder() -> Path:
    """The cache folder of the Hub client, set by ``HF_HUB_CACHE`` or ``HF_HOME``; read at each call."""
    return Path(constants.HF_HUB_CACHE)


def default_revision() -> str:
    """The default revision of a repository, ``main``."""
    return constants.DEFAULT_REVISION
