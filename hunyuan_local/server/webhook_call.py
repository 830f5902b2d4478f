"""One POST to a URL that a client gave: to a checked address, with a time limit.

Does not follow redirects, which no service's documentation promises.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping

import httpcore
import httpx

from ..errors import HunyuanLocalError
from ..outbound.address_check import Lookup, PrivateAddressError
from ..outbound.checked_network import CheckedNetwork, Deadline
from ..outbound.http_exchange import CallError, exchange

_ANSWER_BYTES = 16 * 1024


class CallFailedError(HunyuanLocalError):
    """A call failed or was rejected; ``final`` if it must not be repeated.

    The message names only the host, since paths and queries may contain secrets of the receiver.
    """

    def __init__(self, message: str, *, final: bool = False):
        self.final = final
        super().__init__(message)


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    limit_s: float,
    allow_private: bool,
    tls: ssl.SSLContext,
    lookup: Lookup = socket.getaddrinfo,
) -> None:
    """POST JSON; returns once the receiver has answered with any 2xx status.

    Args:
        limit_s: total time limit in seconds, including lookup and TLS; connecting may take at most 5 s of it.

    Raises:
        CallFailedError: the call failed for any reason; final for 410 Gone.
    """
    target = httpx.URL(url)
    network = CheckedNetwork(allow_private, lookup, Deadline(limit_s))
    all_headers = {"Content-Type": "application/json", **headers}
    try:
        with exchange("POST", target, all_headers, network=network, tls=tls, body=body) as answer:
            status = answer.status
            _drain(answer.iter_stream())
    except CallError as error:
        raise CallFailedError(str(error)) from error
    except PrivateAddressError as error:
        raise CallFailedError(f"{error}, or start the server with --allow-private-webhooks") from error
    _check_status(target.host, status)


def _check_status(host: str, status: int) -> None:
    if 200 <= status < 300:
        return
    remedy = ""
    if 300 <= status < 400:
        remedy = "; redirects are not followed: give the final URL"
    if status == 410:
        remedy = ": it wants no more calls"
    raise CallFailedError(f"{host} answered HTTP {status}{remedy}", final=status == 410)


def _drain(parts: Iterable[bytes]) -> None:
    """Read a short response body, so that the sender sees no broken connection; only the status matters."""
    done = 0
    try:
        for part in parts:
            done += len(part)
            if done > _ANSWER_BYTES:
                return
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        return
