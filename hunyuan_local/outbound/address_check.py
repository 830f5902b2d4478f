"""Checks the network addresses that this package calls on behalf of others, and resolves host names to them.

Callers must connect to the addresses returned here instead of resolving the name again, since the second answer may
differ. Two cases cannot be detected: public addresses of this machine itself, and private addresses behind an IPv6
prefix that the network translates. Independent of HTTP.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ..errors import HunyuanLocalError

Address = IPv4Address | IPv6Address
Lookup = Callable[..., list[tuple[Any, ...]]]  # same signature as socket.getaddrinfo

# The system's lookup has no time limit and cannot be stopped. At most this many run at a time, so that a slow name
# server does not fill the process with threads.
_LOOKUPS = threading.BoundedSemaphore(64)

_UNICAST = ipaddress.ip_network("2000::/3")  # all globally assigned addresses, RFC 4291
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses translated by NAT64, RFC 6052
# Some versions of Python's ipaddress consider parts of these global: shared address space (RFC 6598), protocol
# assignments, 6to4 relays and addresses (RFC 7526), Teredo and adjacent ranges, documentation (RFC 9637).
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
)


class PrivateAddressError(HunyuanLocalError):
    """A host resolves to a non-public address. The message, which clients see, does not name the address."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet: not private, loopback, link-local, multicast or otherwise special.

    An IPv6 address that embeds an IPv4 address is judged by the IPv4 address.
    """
    if isinstance(address, IPv6Address):
        meant = address.ipv4_mapped
        if address in _TRANSLATED:
            meant = IPv4Address(int(address) & 0xFFFFFFFF)
        if meant is not None:
            return is_public(meant)
        if address not in _UNICAST:
            return False
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(address in network for network in _SPECIAL)


def find_addresses(
    host: str, port: int, *, allow_private: bool, limit_s: float, lookup: Lookup = socket.getaddrinfo
) -> list[Address]:
    """Resolve a host, in the order of the system; accepts any spelling of an address that the system accepts.

    Args:
        limit_s: time limit of the lookup in seconds.

    Raises:
        PrivateAddressError: one of the addresses is not public, and ``allow_private`` is false.
        OSError: the host has no address, or (TimeoutError) the lookup timed out.
    """
    answers = _look_up(host, port, limit_s, lookup)
    addresses = list(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers))
    if not addresses:
        raise OSError("the name has no address")
    # Refuse if any address is private: a name with both kinds is an attempt to bypass this check.
    if not allow_private and not all(map(is_public, addresses)):
        raise PrivateAddressError(
            f"{host} is or resolves to a private, loopback or otherwise special address; give a public one"
        )
    return addresses


def _look_up(host: str, port: int, limit_s: float, lookup: Lookup) -> list[tuple[Any, ...]]:
    """Look up in a separate thread, which keeps running after the time limit."""
    answer: Future[list[tuple[Any, ...]]] = Future()

    def ask() -> None:
        try:
            answer.set_result(lookup(host, port, type=socket.SOCK_STREAM))
        except UnicodeError:  # from encoding the name with IDNA
            answer.set_exception(OSError("the name is not a host name: a part is empty or longer than 63 characters"))
        except Exception as error:
            answer.set_exception(error)
        finally:
            _LOOKUPS.release()

    ends = time.monotonic() + limit_s
    if not _LOOKUPS.acquire(timeout=limit_s):
        raise TimeoutError("the name was not looked up: too many other lookups are in progress")
    threading.Thread(target=ask, name="lookup", daemon=True).start()
    try:
        return answer.result(max(0.0, ends - time.monotonic()))
    except TimeoutError as error:
        raise TimeoutError(f"the lookup did not finish within {limit_s:.1f} s") from error
