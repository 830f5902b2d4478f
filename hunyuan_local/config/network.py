"""HTTP clients that follow the environment's proxy, ``NO_PROXY`` and certificate settings.

All HTTP clients of this package are created here. Errors name the environment variable and its value, and only
variables that apply to an address are checked: a direct connection needs no proxy, and one without TLS no certificates.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..errors import ConfigError, first_line

_PROXY_S = 5.0
_SCHEMES = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
# Variables of other programs; not used here, but mentioned in errors.
_OTHER_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Proxy:
    """A proxy from the environment variable ``variable``."""

    variable: str
    value: str

    @property
    def url(self) -> str:
        """The proxy's URL; the scheme defaults to http, as in curl."""
        return self.value if "://" in self.value else f"http://{self.value}"

    def __str__(self) -> str:
        return f"{self.variable}={re.sub(r'//[^/]*@|^[^/]*@', '//***@', self.value)!r}"


def http_client(url: str, **options: Any) -> httpx.Client:
    """Create a client for ``url``; the route of every request, redirects included, is chosen by its own URL.

    Args:
        options: options of :class:`httpx.Client`; with a ``transport``, the environment is ignored.

    Raises:
        ConfigError: an environment variable that applies to ``url`` is invalid.
    """
    if options.get("transport") is None:
        check_way(url)
        options["transport"] = _Ways()
    return httpx.Client(trust_env=False, **options)


def check_way(url: str) -> None:
    """Check that the proxy and the certificates for a URL are usable.

    Raises:
        ConfigError: names the variable, its value and the remedy.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        tls_context()
    proxy = proxy_for(url)
    if proxy is None:
        return
    remedy = f"correct or unset {proxy.variable}, or list {parts.hostname} in NO_PROXY"
    try:
        way = urlsplit(proxy.url)
        host, port = way.hostname, way.port or _PORTS.get(way.scheme, 80)
    except ValueError as error:
        raise ConfigError(f"{proxy}: is not a valid proxy address ({error}); {remedy}") from error
    if way.scheme not in _SCHEMES or not host:
        raise ConfigError(f"{proxy}: must be like http://host:port or {_SCHEMES[2]}://host:port; {remedy}")
    if way.scheme.startswith("socks"):
        _require_socks(proxy, remedy)
    try:
        socket.create_connection((host, port), _PROXY_S).close()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{proxy}: the proxy cannot be reached: {first_line(error)}; {remedy}") from error


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL; None for a direct connection, which this machine always has to itself.

    ``NO_PROXY`` may contain host names (including subdomains), IPv4 and IPv6 addresses with or without brackets,
    networks, each with an optional port, and ``*``.
    """
    parts = urlsplit(url)
    found = next(filter(None, map(_variable, (f"{parts.scheme}_proxy", "all_proxy"))), None)
    return None if found is None or _is_excepted(parts.hostname or "", parts.port) else found


def tls_context() -> ssl.SSLContext:
    """TLS context with the certificates of ``SSL_CERT_FILE`` or ``SSL_CERT_DIR``, else of certifi.

    Raises:
        ConfigError: the file or the folder cannot be read.
    """
    for variable, kind in (("SSL_CERT_FILE", "cafile"), ("SSL_CERT_DIR", "capath")):
        if not (value := os.environ.get(variable)):
            continue
        try:
            if kind == "capath":
                os.listdir(value)
            return _context(kind, value, os.stat(value).st_mtime_ns)
        except OSError as error:  # includes ssl.SSLError
            what = "a file of certificates in PEM format" if kind == "cafile" else "a folder of certificates"
            why = error.strerror if error.strerror and not isinstance(error, ssl.SSLError) else first_line(error)
            raise ConfigError(f"{variable}={value!r}: is not {what} ({why}); correct or unset {variable}") from error
    return _usual_context()


@contextmanager
def without_network_variables() -> Iterator[None]:
    """Hide network variables from a library that creates HTTP clients without using them."""
    names = ("all_proxy", "http_proxy", "https_proxy", "no_proxy")
    hidden = {
        name: os.environ.pop(name) for name in [*names, *map(str.upper, names), *_CERTIFICATES] if name in os.environ
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def advice(url: str, error: BaseException) -> str:
    """How the environment may have caused a failed request, as the end of a sentence; empty if it did not."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        used = next((f"{name}={os.environ[name]!r}" for name in _CERTIFICATES if os.environ.get(name)), "certifi")
        others = [f"{name}={os.environ[name]!r}" for name in _OTHER_CERTIFICATES if os.environ.get(name)]
        unread = f" ({', '.join(others)} is not used)" if others else ""
        return f"; {used} does not contain its certificate authority: set SSL_CERT_FILE to a file that does{unread}"
    proxy = proxy_for(url)
    return "" if proxy is None else f"; through the proxy {proxy}"


class _Ways(httpx.BaseTransport):
    """Sends each request directly or through a proxy; creates transports on first use."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, Proxy | None], httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._way(str(request.url)).handle_request(request)

    def close(self) -> None:
        for transport in self._made.values():
            transport.close()

    def _way(self, url: str) -> httpx.HTTPTransport:
        is_secure, proxy = url.startswith("https:"), proxy_for(url)
        key = (is_secure, proxy)
        if key not in self._made:
            check_way(url)
            # Without TLS there is no certificate to verify.
            verify: ssl.SSLContext | bool = tls_context() if is_secure else False
            by = None
            if proxy is not None:
                by = httpx.Proxy(proxy.url, ssl_context=tls_context() if proxy.url.startswith("https:") else None)
            self._made[key] = httpx.HTTPTransport(verify=verify, proxy=by)
        return self._made[key]


def _variable(name: str) -> Proxy | None:
    """Read a variable in lower case, else in upper case, as curl does."""
    for variable in (name, name.upper()):
        if value := os.environ.get(variable, "").strip():
            return Proxy(variable, value)
    return None


def _is_excepted(host: str, port: int | None) -> bool:
    """Whether a host is this machine or listed in ``NO_PROXY``."""
    address = None
    with suppress(ValueError):  # a name
        address = ipaddress.ip_address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    listed = _variable("no_proxy")
    entries = re.split(r"[,\s]+", listed.value.lower()) if listed is not None else []
    return any(_excepts(entry.partition("://")[2] or entry, host.lower(), address, port) for entry in entries if entry)


def _excepts(
    entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int | None
) -> bool:
    """Whether one entry of ``NO_PROXY`` matches a host."""
    if entry == "*":
        return True
    match = re.fullmatch(r"\[(.*)\](?::(\d+))?|([^:]*):(\d+)", entry)
    if match is not None:
        entry, own_port = match[1] or match[3] or "", match[2] or match[4]
        if own_port is not None and port is not None and int(own_port) != port:
            return False
    with suppress(ValueError):  # a name
        network = ipaddress.ip_network(entry, strict=False)
        return address is not None and address in network
    name = entry.removeprefix("*").removeprefix(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _require_socks(proxy: Proxy, remedy: str) -> None:
    try:
        import socksio  # type: ignore[import-not-found, unused-ignore] # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{proxy}: a SOCKS proxy needs the package socksio (pip install socksio); or {remedy}"
        ) from error


@cache
def _context(kind: str, value: str, changed: int) -> ssl.SSLContext:
    """Load certificates, which takes about 0.1 s; cached until the file changes (``changed`` is its mtime)."""
    return ssl.create_default_context(cafile=value) if kind == "cafile" else ssl.create_default_context(capath=value)


@cache
def _usual_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
