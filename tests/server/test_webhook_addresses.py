"""Webhook URLs: no spelling and no name server trick leads a call to a private address."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_strategies import unhurried

from hunyuan_local.errors import InvalidRequestError
from hunyuan_local.server import webhooks
from hunyuan_local.server.address_check import PrivateAddressError, find_addresses, is_public
from hunyuan_local.server.webhooks import check_webhook

# The blocks of the IANA special-purpose registries that are not globally reachable, and multicast.
PRIVATE_4 = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
    )
]  # fmt: skip
PRIVATE_6 = [
    ipaddress.IPv6Network(network)
    for network in (
        "::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32", "2002::/16",
        "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip


def inside(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> st.SearchStrategy[int]:
    return st.integers(int(network.network_address), int(network.broadcast_address))


private_4 = st.sampled_from(PRIVATE_4).flatmap(inside).map(IPv4Address)
private_6 = st.sampled_from(PRIVATE_6).flatmap(inside).map(IPv6Address)
# The public blocks between them.
ENDS = sorted([(-1, -1), *((int(n.network_address), int(n.broadcast_address)) for n in PRIVATE_4)])
GAPS = [(end + 1, begin - 1) for (_, end), (begin, _) in itertools.pairwise(ENDS) if end + 1 < begin]
public_4 = st.sampled_from(GAPS).flatmap(lambda gap: st.integers(*gap)).map(IPv4Address)


@st.composite
def spelled_4(draw: st.DrawFn, addresses: st.SearchStrategy[IPv4Address]) -> str:
    """An IPv4 address in a form that a system accepts: one to four numbers, each in base 8, 10 or 16."""
    value = int(draw(addresses))
    parts = draw(st.integers(1, 4))
    numbers = [(value >> (24 - 8 * place)) & 0xFF for place in range(parts - 1)]
    numbers.append(value & ((1 << (8 * (5 - parts))) - 1))
    forms = st.sampled_from(["{:d}", "0x{:x}", "0X{:X}", "0{:o}", "0x0000{:x}", "000{:o}"])
    return ".".join(draw(forms).format(number) for number in numbers)


@st.composite
def embedded(draw: st.DrawFn, addresses: st.SearchStrategy[IPv4Address]) -> IPv6Address:
    """An IPv6 address that leads to an IPv4 one: mapped, compatible, translated, 6to4."""
    value = int(draw(addresses))
    return IPv6Address(
        draw(
            st.sampled_from(
                [
                    (0xFFFF << 32) | value,
                    value,
                    (0x0064FF9B << 96) | value,
                    (0x2002 << 112) | (value << 80),
                    (0x2002 << 112) | (value << 80) | value,
                ]
            )
        )
    )


@st.composite
def spelled_6(draw: st.DrawFn, addresses: st.SearchStrategy[IPv6Address]) -> str:
    address = draw(addresses)
    high, low = int(address) >> 32, IPv4Address(int(address) & 0xFFFFFFFF)
    dotted = ":".join(f"{(high >> (16 * place)) & 0xFFFF:x}" for place in range(5, -1, -1)) + f":{low}"
    text = draw(st.sampled_from([address.compressed, address.exploded, dotted]))
    return f"[{text.upper() if draw(st.booleans()) else text}]"


def resolving(*answers: str) -> Callable[..., list]:
    """A name server that resolves every name."""
    kinds = {4: socket.AF_INET, 6: socket.AF_INET6}

    def look_up(host: str, port: int, **_: object) -> list:
        found = [(kinds[ipaddress.ip_address(answer).version], answer) for answer in answers]
        return [(kind, socket.SOCK_STREAM, 6, "", (answer, port)) for kind, answer in found]

    return look_up


def knows_no_name(host: str, port: int, **_: object) -> list:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def refusal(url: str, lookup: Callable[..., list] = knows_no_name) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        check_webhook(url, False, lookup=lookup)
    return str(caught.value)


# Which addresses are public


@given(private_4)
@unhurried
def test_no_special_ipv4_address_is_public(address: IPv4Address) -> None:
    assert not is_public(address)


@given(private_6)
@unhurried
def test_no_special_ipv6_address_is_public(address: IPv6Address) -> None:
    assert not is_public(address)


@given(public_4)
@unhurried
def test_every_other_ipv4_address_is_public(address: IPv4Address) -> None:
    assert is_public(address)


@given(inside(ipaddress.IPv6Network("2600::/12")).map(IPv6Address))
@unhurried
def test_addresses_that_are_given_out_are_public(address: IPv6Address) -> None:
    assert is_public(address)


@given(embedded(private_4))
@unhurried
def test_no_ipv6_form_of_a_special_ipv4_address_is_public(address: IPv6Address) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_a_public_ipv4_address_is_public_behind_a_translator(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_an_address_with_a_zone_is_not_public() -> None:
    assert not is_public(ipaddress.ip_address("fe80::1%eth0"))


# Which URLs are accepted with a job


@given(spelled_4(private_4))
@unhurried
def test_no_spelling_of_a_private_ipv4_address_is_taken(host: str) -> None:
    assert "webhook=" in refusal(f"http://{host}/hook", socket.getaddrinfo)


@given(spelled_6(private_6 | embedded(private_4)))
@unhurried
def test_no_spelling_of_a_private_ipv6_address_is_taken(host: str) -> None:
    assert "private, loopback or otherwise special" in refusal(f"http://{host}:8080/hook", socket.getaddrinfo)


@given(public_4)
@unhurried
def test_a_public_address_is_taken(address: IPv4Address) -> None:
    check_webhook(f"http://{address}/hook", False)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/hook",
        "http://LOCALHOST:9000",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1",
        "http://0/",
        "http://0.0.0.0:8000/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::]/",
        "http://[::1]:80/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
    ],
)
def test_well_known_tricks_are_refused(url: str) -> None:
    assert "--allow-private-webhooks" in refusal(url, socket.getaddrinfo)


@pytest.mark.parametrize("host", ["0177.0.0.1", "010.0.0.1", "0.0.0.00"])
def test_an_octal_address_is_refused_whatever_it_means(host: str) -> None:
    refusal(f"http://{host}/", socket.getaddrinfo)


def test_a_name_of_a_private_address_is_refused() -> None:
    assert "me.example is or resolves to a private" in refusal("https://me.example/hook", resolving("10.0.0.1"))


def test_one_private_address_among_public_ones_is_enough() -> None:
    assert "private" in refusal("https://me.example/hook", resolving("8.8.8.8", "2606:4700::1", "10.0.0.1"))


def test_a_refusal_does_not_tell_the_address() -> None:
    assert "10.0.0.1" not in refusal("https://me.example/hook", resolving("10.0.0.1"))


def test_a_name_of_a_public_address_is_taken() -> None:
    check_webhook("https://me.example/hook?token=1", False, lookup=resolving("8.8.8.8", "2606:4700::1"))


def test_a_name_that_nobody_knows_yet_is_taken() -> None:
    check_webhook("https://me.example/hook", False, lookup=knows_no_name)


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_LOOKUP_S", 0.1)
    release = threading.Event()

    def silent(host: str, port: int, **_: object) -> list:
        release.wait()
        return []

    check_webhook("https://me.example/hook", False, lookup=silent)
    release.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/hook", "http://[::1]/", "http://localhost/"])
def test_private_addresses_are_taken_where_they_are_allowed(url: str) -> None:
    check_webhook(url, True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//me.example/hook",
        "ftp://me.example/hook",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "unix:///run/docker.sock",
        "http://",
        "https:///hook",
        "http://:80/",
        "http://me.example:0/",
        "http://me.example:99999/",
        "http://me.example:x/",
        "http://[::1/",
        "http://exa mple/",
        "http://me.example/\r\nX-Injected: 1",
        "http://me.example/\0",
        "https://" + "a" * 64 + ".example/",
        "https://me..example/",
        "https://\ud800.example/",
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_web_address_is_refused(url: str, allow_private: bool) -> None:
    with pytest.raises(InvalidRequestError, match=r"^webhook="):
        check_webhook(url, allow_private, lookup=resolving("8.8.8.8"))


def test_a_password_is_refused_and_not_repeated() -> None:
    said = refusal("https://me:secret@me.example/hook")
    assert "must not contain a user name or password" in said and "secret@" not in said


def test_a_long_address_is_refused() -> None:
    assert "longer than 2048 characters" in refusal("https://me.example/" + "a" * 2030)


@given(st.text(max_size=40) | st.text(max_size=30).map(lambda text: f"http://{text}/"))
@unhurried
def test_any_text_is_taken_or_refused(url: str) -> None:
    try:
        check_webhook(url, False, lookup=knows_no_name)
    except InvalidRequestError as error:
        assert str(error).startswith("webhook=")


# Lookups


@given(spelled_4(private_4))
@unhurried
def test_no_spelling_of_a_private_ipv4_address_is_found(host: str) -> None:
    with pytest.raises(PrivateAddressError):
        find_addresses(host, 80, allow_private=False, limit_s=60)


@given(spelled_4(public_4))
@unhurried
def test_a_public_ipv4_address_is_found_in_every_spelling(host: str) -> None:
    (found,) = find_addresses(host, 80, allow_private=False, limit_s=60)
    assert found == IPv4Address(socket.inet_aton(host))


def test_addresses_come_in_the_order_of_the_name_server_and_once() -> None:
    found = find_addresses("x", 80, allow_private=False, limit_s=5, lookup=resolving("8.8.8.8", "1.1.1.1", "8.8.8.8"))
    assert [str(address) for address in found] == ["8.8.8.8", "1.1.1.1"]


def test_a_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match="no address"):
        find_addresses("x", 80, allow_private=True, limit_s=5, lookup=resolving())


def test_a_lookup_ends_in_time() -> None:
    release = threading.Event()
    with pytest.raises(TimeoutError, match=r"did not finish within 0\.1 s"):
        find_addresses("x", 80, allow_private=True, limit_s=0.1, lookup=lambda *_, **__: release.wait() and [])
    release.set()


def test_private_addresses_are_found_where_they_are_allowed() -> None:
    assert find_addresses("x", 80, allow_private=True, limit_s=5, lookup=resolving("10.0.0.1"))


def test_private_addresses_are_refused_elsewhere() -> None:
    with pytest.raises(PrivateAddressError, match="--allow-private-webhooks"):
        find_addresses("x", 80, allow_private=False, limit_s=5, lookup=resolving("10.0.0.1"))
