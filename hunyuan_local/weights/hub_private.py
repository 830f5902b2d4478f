"""What is used of huggingface_hub that it does not document, in one place: an upgrade may take it away or change it.

Tried with 2.4; ``tests/test_private_members.py`` names each member, and fails by its name when it is gone. The
layout of the cache is documented, and stands in :mod:`hunyuan_local.weights.cache`.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.hf_api import RepoSibling

__all__ = ["RepoSibling", "cache_folder", "default_revision", "endpoint", "home_folder"]


def endpoint() -> str:
    """The address of the Hub, as ``HF_ENDPOINT`` says; read at each call."""
    return constants.ENDPOINT


def home_folder() -> Path:
    """Where the Hub's client keeps its files, as ``HF_HOME`` says."""
    return Path(constants.HF_HOME)


def cache_folder() -> Path:
    """Where the Hub's client keeps repositories, as ``HF_HUB_CACHE`` and ``HF_HOME`` say; read at each call."""
    return Path(constants.HF_HUB_CACHE)


def default_revision() -> str:
    """The revision that a repository has where none is named: ``main``."""
    return constants.DEFAULT_REVISION
