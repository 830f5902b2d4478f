"""One POST to an address that a client named: guarded, within a time limit, without redirects and proxies.

The connection is made to an address that was looked up and checked a moment before, so a name server
that changes its answer gains nothing; the name stays in the Host header and is what the certificate
must show. Redirects are not followed: no page of the services promises it, and each is a way around
a check. Proxies of the environment are not used: they would connect where they like.
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
from .addresses import Lookup, PrivateAddressError, find_addresses

CONNECT_S = 5.0
_SLICE_BYTES = 4096
_ANSWER_BYTES = 16 * 1024


class CallFailedError(HunyuanLocalError):
    """A call did not arrive, or was not taken; ``final`` if no further one should be made.

    The message names the host alone: paths and queries may hold what only the receiver should know.
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
    """Send JSON; it has been taken when this returns: any 2xx, whatever the answer's body.

    Args:
        limit_s: seconds for all of it, lookup and TLS included; 5 of them until it is connected.

    Raises:
        CallFailedError: it was not taken, for any reason; final at 410 Gone.
    """
    target = httpx.URL(url)
    address = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
    wire_headers = {
        # Made here, as httpcore leaves the brackets of an IPv6 address out.
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
            _read_a_little(answer.iter_stream())
    except httpcore.TimeoutException as error:
        raise CallFailedError(f"{target.host} did not answer in time ({limit_s:g} s)") from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise CallFailedError(f"{target.host} cannot be called: {str(error) or type(error).__name__}") from error
    except PrivateAddressError as error:
        raise CallFailedError(str(error)) from error
    _judge(target.host, status)


def _judge(host: str, status: int) -> None:
    if 200 <= status < 300:
        return
    remedy = ""
    if 300 <= status < 400:
        remedy = "; redirects are not followed: give the address that it leads to"
    if status == 410:
        remedy = ": it wants no more calls"
    raise CallFailedError(f"{host} answered HTTP {status}{remedy}", final=status == 410)


def _read_a_little(parts: Iterable[bytes]) -> None:
    """Take in a short answer, so that its sender sees no broken connection; the status alone counts."""
    done = 0
    try:
        for part in parts:
            done += len(part)
            if done > _ANSWER_BYTES:
                return
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        return


class _Deadline:
    """The end of a call; time limits a step alone would let a slow receiver hold it for ever."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds that are left.

        Raises:
            httpcore.TimeoutException: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.TimeoutException("the time is over")
        return left


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to checked addresses alone, and ends all that is done there at the deadline."""

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
        """A connection to the first address of ``host`` that takes one.

        Raises:
            PrivateAddressError: see :func:`hunyuan_local.server.addresses.find_addresses`.
            httpcore.ConnectError, httpcore.TimeoutException: there is none.
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
    """A connection whose every step ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In slices: within one write the plain stream grants the time anew to each piece that goes out.
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
