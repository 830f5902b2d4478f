"""Validation of service base URLs, and detection of loopback addresses."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

import httpx

from ...errors import ConfigError


def check_url(url: str) -> str:
    """Validate a base URL and return it without trailing slashes.

    Raises:
        ConfigError: the URL is invalid, or contains a password.
    """
    try:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ConfigError("base_url: must not contain a user name or a password; use the key instead")
        httpx.URL(url).raw_host.decode("ascii")  # raises if the host name cannot be looked up
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
    """Whether a URL points to this machine."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):  # a host name, not an IP address
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
