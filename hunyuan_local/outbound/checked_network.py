"""Connections for calls to URLs that strangers gave: only to checked addresses, and with one deadline for everything.

Connects only to an address that was just resolved and checked, so a name server that changes its answer gains nothing
(DNS rebinding); the host name stays in the Host header and is verified against the certificate. Ignores proxies from
the environment, since a proxy would resolve the name itself.
"""

from __future__ import annotations

import ssl
import time
from typing import Any

import httpcore

from .address_check import Lookup, find_addresses

CONNECT_S = 5.0
_SLICE_BYTES = 4096


class Deadline:
    """The deadline of a call. Timeouts per step would let a slow peer hold the connection forever."""

    def __init__(self, seconds: float):
        self.seconds = seconds
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


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects only to checked addresses, and stops all I/O at the deadline."""

    def __init__(self, allow_private: bool, lookup: Lookup, deadline: Deadline):
        self._allow_private, self._lookup, self._deadline = allow_private, lookup, deadline
        self._plain = httpcore.SyncBackend()

    @property
    def limit_s(self) -> float:
        """Time limit of the whole call in seconds."""
        return self._deadline.seconds

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
            PrivateAddressError: see :func:`find_addresses`.
            httpcore.ConnectError, httpcore.TimeoutException: no address accepted.
        """
        connected_by = Deadline(min(CONNECT_S, self._deadline.left_s()))
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

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline):
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
