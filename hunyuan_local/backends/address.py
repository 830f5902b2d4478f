"""Base URLs of services: whether one can be used, and whether it leaves this machine."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit

from ..errors import ConfigError


def check_url(url: str) -> str:
    """A service's address, without a slash at its end.

    Raises:
        ConfigError: it is not one, or holds a password.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and not parts.query and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(f"base_url={url!r}: must be like https://host or http://host:port")
    if parts.username or parts.password:
        raise ConfigError(f"base_url: must not hold a name or a password (at {parts.hostname}); use the key instead")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
