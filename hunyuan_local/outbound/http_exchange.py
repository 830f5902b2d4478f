"""One HTTP exchange with a URL that a stranger gave: the rules for the URL, the request, and its failures in words."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpcore
import httpx

from ..errors import HunyuanLocalError
from .checked_network import CheckedNetwork

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


class CallError(HunyuanLocalError):
    """A host did not answer in time, or cannot be called.

    The message names only the host, since paths and queries may contain secrets of the receiver.
    """


def parse_url(text: str) -> httpx.URL:
    """The URL, if it may be called: http(s), a host name or address, a valid port, and no password.

    Raises:
        ValueError: it may not; states the rule.
    """
    try:
        url = httpx.URL(text)
        port = port_of(url)
    except (httpx.InvalidURL, ValueError):
        raise ValueError("is not a URL; give one such as https://host/path") from None
    host = url.raw_host.decode("ascii")
    is_host = ":" in host or _HOST.fullmatch(host)  # with a colon, it is an IPv6 address that httpx has parsed
    if url.scheme not in ("http", "https") or not is_host or not 0 < port < 2**16:
        raise ValueError("must be like https://host/path or http://host:port/path")
    if url.userinfo:
        raise ValueError("must not contain a user name or password; put a secret into the query instead")
    return url


def port_of(url: httpx.URL) -> int:
    """The port of an http(s) URL, given or the scheme's."""
    return url.port if url.port is not None else 443 if url.scheme == "https" else 80


@contextmanager
def exchange(
    method: str,
    url: httpx.URL,
    headers: Mapping[str, str],
    *,
    network: CheckedNetwork,
    tls: ssl.SSLContext,
    body: bytes | None = None,
) -> Iterator[httpcore.Response]:
    """Send one request; yields the answer, whose body is unread. Redirects are not followed, proxies not used.

    Raises:
        CallError: the host did not answer in time, or cannot be called; also while the body is read.
        PrivateAddressError: the host is or resolves to a private address that ``network`` does not allow.
    """
    address = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    wire_headers = {
        # Set here, since httpcore omits the brackets of an IPv6 address.
        "Host": url.netloc.decode("ascii"),
        "User-Agent": "hunyuan-local",
        "Connection": "close",
        **headers,
    }
    if body is not None:
        wire_headers["Content-Length"] = str(len(body))
    try:
        with (
            httpcore.HTTPConnection(address.origin, ssl_context=tls, network_backend=network) as connection,
            connection.stream(method, address, headers=list(wire_headers.items()), content=body) as answer,
        ):
            yield answer
    except httpcore.TimeoutException as error:
        raise CallError(f"{url.host} did not answer in time ({network.limit_s:g} s)") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise CallError(f"{url.host} cannot be called: {str(error) or type(error).__name__}") from error
