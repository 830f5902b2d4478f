"""The targets of a bench: parsed from the command line, with the label and origin of each one's rows.

Only the URL distinguishes a service from another server in its format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from urllib.parse import urlsplit

from ...backends.hosted.backend import HostedBackend
from ...backends.hosted.base_url import check_url
from ...backends.local.profile_choice import AUTO
from ...backends.registry import backend_names, option_names
from ...config import ModelConfig, RuntimeProfile
from ...errors import ConfigError
from ..results.result import Target

LOCAL = "local"


def parse_targets(texts: Iterable[str]) -> list[tuple[str, str | None]]:
    """Parse strings like ``novita=http://...`` to pairs of backend name and URL; the URL is None for the default.

    Raises:
        ConfigError: no backend, an unknown name, an invalid URL, a URL for the local backend, or a duplicate.
    """
    known = ", ".join(backend_names())
    found: list[tuple[str, str | None]] = []
    for text in texts:
        name, equals, url = text.partition("=")
        if name not in backend_names():
            raise ConfigError(f"backend={name!r}: unknown; use {known}, or NAME=URL for a hosted backend")
        if equals and "base_url" not in option_names(name):
            raise ConfigError(f"backend={text!r}: the {name} backend has no URL; omit it")
        target = (name, check_url(url) if equals else None)
        if target in found:
            raise ConfigError(f"backend={text!r}: given more than once; give each backend once")
        found.append(target)
    if not found:
        raise ConfigError(f"backend: give at least one backend to measure, such as --backend local; use {known}")
    return found


def is_service(base_url: str, own_url: str) -> bool:
    """Whether a URL is in the service's own domain, so that requests to it are billed."""
    host, own = ((urlsplit(url).hostname or "").rstrip(".") for url in (base_url, own_url))
    domain = ".".join(own.split(".")[-2:])
    return host == domain or host.endswith(f".{domain}")


def hosted_target(backend: HostedBackend) -> Target:
    """A service, or a server in its format."""
    is_billed = is_service(backend.base_url, backend.default_url)
    if is_billed:
        origin = f"{backend.name}, the service itself at {backend.base_url}, as seen from this machine"
    else:
        origin = f"a server at {backend.base_url} in the format of {backend.name}, not the service, judging by its URL"
    is_usual = backend.base_url == backend.default_url
    return Target(
        label=backend.name if is_usual else f"{backend.name} at {backend.base_url}",
        backend=backend.name,
        origin=origin,
        base_url=backend.base_url,
        is_billed=is_billed,
        identity=backend.identity,
    )


def local_target(config: ModelConfig, profile: RuntimeProfile | None, cache: str | None, weights: str) -> Target:
    """This machine with a model.

    Args:
        profile: runtime profile; None chooses one for each request.
        cache: name of a step cache that replaces the profile's.
        weights: identity of the model's files.
    """
    named = AUTO if profile is None else f"{profile.name} {_digest(profile.model_dump_json())}"
    return Target(
        label=LOCAL,
        backend=LOCAL,
        origin="measured on this machine",
        identity=f"{config.identity}; {weights}; profile {named}; cache {cache or 'of the profile'}",
        profile=AUTO if profile is None else profile.name,
        model=config.name,
    )


def check_labels(targets: Iterable[Target]) -> None:
    """Refuse targets with the same label, such as a service given by name and by the URL in its environment variable.

    Raises:
        ConfigError: a label occurs more than once; the message names it.
    """
    labels = [target.label for target in targets]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"backend={twice[0]!r}: given more than once; give each backend once")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
