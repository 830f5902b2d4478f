"""One POST to a URL that a client gave: protected, with a time limit, without redirects and proxies.

Connects only to an address that was just resolved and checked, so a name server that changes its answer gains nothing
(DNS rebinding); the host name stays in the Host header and is verified against the certificate. Does not follow
redirects, which no service's documentation promises and which could bypass the check. Ignores proxies from the
environment, since a proxy would resolve the name itself.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore
import httpx

from ..errors import HunyuanLocalError
from .address_check import Lookup, PrivateAddressError, find_addresses

CONNECT_S = 5.0
_SLICE_BYTES = 4096
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
    network = _CheckedNetwork(allow_private, lookup, _Deadline(limit_s))
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
        raise CallFailedError(str(error)) from error
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


class _Deadline:
    """The deadline of a call. Timeouts per step would let a slow receiver hold the connection forever."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left.

        Raises:
            httpcore.TimeoutException: none are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.TimeoutException("the time limit has passed")
        return left


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects only to checked addresses, and stops all I/O at the deadline."""

    def __init__(self, allow_private: bool, lookup: Lookup, deadline: _Deadline):
        self._allow_private, self._lookup, self._deadline = allow_private, lookup, deadline
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of ``host`` that accepts.

        Raises:
            PrivateAddressError: see :func:`hunyuan_local.server.address_check.find_addresses`.
            httpcore.ConnectError, httpcore.TimeoutException: no address accepted.
        """
        connected_by = _Deadline(min(CONNECT_S, self._deadline.left_s()))
        try:
            addresses = find_addresses(
                host, port, allow_private=self._allow_private, limit_s=connected_by.left_s(), lookup=self._lookup
            )
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for number, address in enumerate(addresses):
            share_s = connected_by.left_s() / (len(addresses) - number)
            try:
                stream = self._plain.connect_tcp(str(address), port, share_s, local_address, socket_options)
                return _TimedStream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A connection whose reads and writes all end at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In slices, since the plain stream restarts its timeout for each part of a write that is sent.
        for begin in range(0, len(buffer), _SLICE_BYTES):
            self._stream.write(buffer[begin : begin + _SLICE_BYTES], self._deadline.left_s())

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left_s())
        return _TimedStream(stream, self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
