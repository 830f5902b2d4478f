"""The backends that are compared: what the command line calls them, and where the rows of each come from.

A server of one's own is told from a service by its address alone.
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
    """Names of backends, each with an address or None for the usual one, from texts like ``novita=http://...``.

    Raises:
        ConfigError: none, an unknown name, an address that is none, or of the local backend, or twice the same.
    """
    known = ", ".join(backend_names())
    found: list[tuple[str, str | None]] = []
    for text in texts:
        name, equals, url = text.partition("=")
        if name not in backend_names():
            raise ConfigError(f"backend={name!r}: not known; use {known}, each also with an address: NAME=URL")
        if equals and "base_url" not in option_names(name):
            raise ConfigError(f"backend={text!r}: the {name} backend has no address; leave it out")
        target = (name, check_url(url) if equals else None)
        if target in found:
            raise ConfigError(f"backend={text!r}: is there more than once; each is compared once")
        found.append(target)
    if not found:
        raise ConfigError(f"backend: say what to measure, such as --backend local; known are {known}")
    return found


def is_service(base_url: str, own_url: str) -> bool:
    """Whether an address is in the domain of the service's own: what goes there is billed."""
    host, own = ((urlsplit(url).hostname or "").rstrip(".") for url in (base_url, own_url))
    domain = ".".join(own.split(".")[-2:])
    return host == domain or host.endswith(f".{domain}")


def hosted_target(backend: HostedBackend) -> Target:
    """A service, or a server in its format."""
    is_billed = is_service(backend.base_url, backend.default_url)
    if is_billed:
        origin = f"{backend.name}, the service itself at {backend.base_url}, as this machine sees it"
    else:
        origin = (
            f"a server at {backend.base_url} in the format of {backend.name}, not the service; told apart by its "
            "address alone"
        )
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
        profile: None is a choice for each request.
        cache: name of a step cache in the place of the profile's own.
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
    """Refuse two targets of one label, such as of a service whose address is also in its environment variable.

    Raises:
        ConfigError: names it.
    """
    labels = [target.label for target in targets]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ConfigError(f"backend={twice[0]!r}: is there more than once; each is compared once")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
