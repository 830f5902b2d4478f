"""Which network addresses the server calls on a client's word, and how a host name becomes such addresses.

Whoever connects must connect to the addresses found here, not look the name up again: the second
answer may be another. Not covered, as they cannot be told from others: public addresses of this
machine itself, and private ones behind an IPv6 prefix that a network translates on its own.
Knows nothing about HTTP.
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
Lookup = Callable[..., list[tuple[Any, ...]]]  # called and answering as socket.getaddrinfo

# The system's lookup has no time limit and cannot be stopped. So many may be under way; a slow name
# server must not fill the process with threads.
_LOOKUPS = threading.BoundedSemaphore(64)

_UNICAST = ipaddress.ip_network("2000::/3")  # all that is given out for global use, RFC 4291
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # IPv4 seen from a network without it, RFC 6052
# What versions of Python's ipaddress take for global in part: shared address space (RFC 6598), protocol
# assignments, 6to4 relays and addresses (RFC 7526), Teredo and its neighbours, documentation (RFC 9637).
_SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
)


class PrivateAddressError(HunyuanLocalError):
    """A host is, or leads to, an address that is not public. The message does not tell which: clients see it."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet's: no private, loopback, link-local, multicast or special one.

    An IPv6 address that stands for an IPv4 one is judged as that one.
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
    """The addresses of a host, in the system's order; any spelling that the system takes for an address counts.

    Args:
        limit_s: seconds that the lookup may take.

    Raises:
        PrivateAddressError: one of them is not public, and ``allow_private`` is false.
        OSError: the host has none, or (TimeoutError) none was found in time.
    """
    answers = _look_up(host, port, limit_s, lookup)
    addresses = list(dict.fromkeys(ipaddress.ip_address(answer[4][0]) for answer in answers))
    if not addresses:
        raise OSError("the name has no address")
    # One is enough: a name with a public and a private address is there to get past this check.
    if not allow_private and not all(map(is_public, addresses)):
        raise PrivateAddressError(
            f"{host} is or leads to a private, loopback or otherwise special address; give a public one, or have the "
            "server started with --allow-private-webhooks"
        )
    return addresses


def _look_up(host: str, port: int, limit_s: float, lookup: Lookup) -> list[tuple[Any, ...]]:
    """Ask in a thread of its own, which outlives the time limit if need be."""
    answer: Future[list[tuple[Any, ...]]] = Future()

    def ask() -> None:
        try:
            answer.set_result(lookup(host, port, type=socket.SOCK_STREAM))
        except UnicodeError:  # of its conversion for the name server
            answer.set_exception(OSError("the name is no host name: a part is empty or longer than 63 characters"))
        except Exception as error:
            answer.set_exception(error)
        finally:
            _LOOKUPS.release()

    ends = time.monotonic() + limit_s
    if not _LOOKUPS.acquire(timeout=limit_s):
        raise TimeoutError("the name was not looked up: too many other lookups are under way")
    threading.Thread(target=ask, name="webhook-lookup", daemon=True).start()
    try:
        return answer.result(max(0.0, ends - time.monotonic()))
    except TimeoutError as error:
        raise TimeoutError(f"the name was not found within {limit_s:.1f} s") from error
