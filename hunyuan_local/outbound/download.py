"""One GET of a URL that a stranger gave: checked addresses, checked redirects, limits of size and time."""

from __future__ import annotations

import socket
import ssl

import httpx

from ..errors import HunyuanLocalError
from .address_check import Lookup, PrivateAddressError
from .checked_network import CheckedNetwork, Deadline
from .http_exchange import CallError, exchange, parse_url

MAX_REDIRECTS = 5


class DownloadRefusedError(HunyuanLocalError):
    """A URL cannot be fetched; the message names the host and the reason, without the path and the query."""


class PrivateHostError(DownloadRefusedError):
    """A host is or resolves to a private address."""


def download(
    url: str,
    *,
    max_bytes: int,
    limit_s: float,
    allow_private: bool,
    tls: ssl.SSLContext,
    lookup: Lookup = socket.getaddrinfo,
) -> bytes:
    """Return the body of an http(s) URL.

    Args:
        max_bytes: larger bodies are refused, as soon as that is known.
        limit_s: time limit for everything, in seconds, redirects included.
        allow_private: whether addresses that are not on the public internet may be called.

    Raises:
        DownloadRefusedError: the text is not such a URL, a host is or resolves to a private address, the server does
            not answer in time or with an error, or the body is too large.
    """
    network = CheckedNetwork(allow_private, lookup, Deadline(limit_s))
    for _ in range(MAX_REDIRECTS + 1):
        try:
            target = parse_url(url)
        except ValueError as error:
            raise DownloadRefusedError(f"it {error}") from error
        try:
            found = _get(target, max_bytes, network, tls)
        except CallError as error:
            raise DownloadRefusedError(str(error)) from error
        except PrivateAddressError as error:
            raise PrivateHostError(str(error)) from error
        if isinstance(found, bytes):
            return found
        url = str(target.join(found))
    raise DownloadRefusedError(f"{target.host} redirects more than {MAX_REDIRECTS} times")


def _get(target: httpx.URL, max_bytes: int, network: CheckedNetwork, tls: ssl.SSLContext) -> bytes | str:
    """The body, or the address of a redirect."""
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    with exchange("GET", target, headers, network=network, tls=tls) as answer:
        given = httpx.Headers(answer.headers)
        if answer.status in (301, 302, 303, 307, 308) and "location" in given:
            return given["location"]
        if answer.status != 200:
            raise DownloadRefusedError(f"{target.host} answered HTTP {answer.status}")
        parts, size = [], 0
        for part in answer.iter_stream():
            size += len(part)
            if size > max_bytes:
                raise DownloadRefusedError(f"{target.host} sends more than {max_bytes:,} bytes")
            parts.append(part)
    return b"".join(parts)
