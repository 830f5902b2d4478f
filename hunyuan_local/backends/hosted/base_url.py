"""Base URLs of services: whether one can be used, and whether it leaves this machine."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

import httpx

from ...errors import ConfigError


def check_url(url: str) -> str:
    """A service's address, without a slash at its end.

    Raises:
        ConfigError: it is not one, or holds a password.
    """
    try:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ConfigError("base_url: must not hold a name or a password; use the key instead")
        httpx.URL(url).raw_host.decode("ascii")  # whether a host name can be looked up at all
        (parts.hostname or "").encode("idna")
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        sound = sound and not parts.query and not parts.fragment
    except (ValueError, httpx.InvalidURL):
        sound = False
    if not sound:
        shown = re.sub(r"//[^/]*@", "//***@", url)
        raise ConfigError(f"base_url={shown!r}: must be like https://host or http://host:port")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):  # a name, not an address
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
