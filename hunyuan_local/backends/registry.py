"""Names of backends and how each is made; nothing is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from .base import Backend


def _local(**options: Any) -> Backend:
    from .local import LocalBackend

    return LocalBackend(**options)


_FACTORIES: dict[str, Callable[..., Backend]] = {"local": _local}


def backend_names() -> list[str]:
    """Names that :func:`get_backend` takes."""
    return sorted(_FACTORIES)


def get_backend(name: str, **options: Any) -> Backend:
    """Make a backend.

    Args:
        name: one of :func:`backend_names`.
        options: for ``local``: ``model`` (a name, folder or Hub id), ``revision`` and ``profile``.

    Raises:
        ConfigError: unknown backend, model or profile.
    """
    if name not in _FACTORIES:
        raise ConfigError(f"backend={name!r}: not known; use {', '.join(backend_names())}")
    return _FACTORIES[name](**options)
