"""Registry of backends by name; a backend's modules are imported only when it is created."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from .base import Backend


def _local(
    model: Any = None,
    profile: Any = None,
    revision: str | None = None,
    lora: Any = (),
    cache: str | None = None,
    context_parallel: int | None = None,
    context_parallel_mode: str | None = None,
) -> Backend:
    from ..config import RuntimeProfile
    from .local import profile_choice
    from .multi_gpu import limits

    found = profile if isinstance(profile, RuntimeProfile) else profile_choice.named_profile(profile)
    found, shared = limits.context_parallel(found, context_parallel, context_parallel_mode)
    if shared is None:
        from .local.backend import LocalBackend

        return LocalBackend(model, found, revision, lora, cache)
    from .multi_gpu.backend import ParallelBackend

    return ParallelBackend(shared, model, found, revision, lora, cache)


def _wavespeed(api_key: str | None = None, base_url: str | None = None, timeout_s: float | None = None) -> Backend:
    from .hosted.wavespeed import WaveSpeedBackend

    return WaveSpeedBackend(api_key, base_url, timeout_s)


def _novita(api_key: str | None = None, base_url: str | None = None, timeout_s: float | None = None) -> Backend:
    from .hosted.novita import NovitaBackend

    return NovitaBackend(api_key, base_url, timeout_s)


_FACTORIES: dict[str, Callable[..., Backend]] = {"local": _local, "novita": _novita, "wavespeed": _wavespeed}


def backend_names() -> list[str]:
    """Names that :func:`get_backend` accepts."""
    return sorted(_FACTORIES)


def option_names(name: str) -> tuple[str, ...]:
    """The options that :func:`get_backend` accepts for this backend.

    Raises:
        ConfigError: unknown backend.
    """
    if name not in _FACTORIES:
        raise ConfigError(f"backend={name!r}: unknown backend; use {', '.join(backend_names())}")
    return tuple(inspect.signature(_FACTORIES[name]).parameters)


def get_backend(name: str, **options: Any) -> Backend:
    """Create a backend.

    Args:
        name: one of :func:`backend_names`.
        options: for ``local``: ``model`` (a name, folder, Hub id or ``ModelConfig``), ``revision``, ``profile`` (a
            name, YAML file, mode of the plan or ``RuntimeProfile``), ``lora`` (a list of ``LoraConfig``), ``cache``
            (a name), ``context_parallel`` (number of GPUs that share one video) and ``context_parallel_mode``
            (``ulysses`` or ``ring``). For the hosted backends: ``api_key``, ``base_url`` and ``timeout_s``. None
            selects the default.

    Raises:
        ConfigError: unknown backend, model or profile, or an option of another backend.
    """
    known = option_names(name)
    given = {option: value for option, value in options.items() if value is not None}
    if foreign := sorted(given.keys() - set(known)):
        raise ConfigError(f"{', '.join(foreign)}: not an option of the backend {name}; use {', '.join(known)}")
    return _FACTORIES[name](**given)
