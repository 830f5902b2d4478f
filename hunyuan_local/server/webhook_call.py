"""One POST to a URL that a client gave: protected, with a time limit, without redirects and proxies.

Connects only to an address that was just resolved and checked, so a name server that changes its answer gains nothing
(DNS rebinding); the host name stays in the Host header and is verified against the certificate. Does not follow
redirects, which no service's documentation promises and which could bypass the check. Ignores proxies from the
environment, since a proxy would resolve the name itself.
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
    address = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
    wire_headers = {
        # Set here, since httpcore omits the brackets of an IPv6 address.
        "Host": target.netloc.decode("ascii"),
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "User-Agent": "hunyuan-local",
        "Connection": "close",
        **headers,
    }
    network = CheckedNetwork(allow_private, lookup, Deadline(limit_s))
    try:
        with (
            httpcore.HTTPConnection(address.origin, ssl_context=tls, network_backend=network) as connection,
            connection.stream("POST", address, headers=list(wire_headers.items()), content=body) as answer,
        ):
            status = answer.status
            _drain(answer.iter_stream())
    except httpcore.TimeoutException as error:
        raise CallFailedError(f"{target.host} did not answer in time ({limit_s:g} s)") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise CallFailedError(f"{target.host} cannot be called: {str(error) or type(error).__name__}") from error
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
