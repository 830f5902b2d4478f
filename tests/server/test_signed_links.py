"""Signed URLs: valid for one video and a limited time."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from manual_clock import ManualClock

from hunyuan_local.server.signed_links import LinkSigner


@pytest.fixture
def signer(clock: ManualClock) -> LinkSigner:
    return LinkSigner("secret", 60, clock)


def parts(url: str) -> tuple[str, str]:
    query = parse_qs(urlsplit(url).query)
    return query["expires"][0], query["signature"][0]


def test_an_address_is_absolute_and_ends_in_mp4_before_its_query(signer: LinkSigner) -> None:
    assert signer.sign("https://host/", "j1").startswith("https://host/files/j1.mp4?expires=1060&signature=")


def test_an_address_works(signer: LinkSigner) -> None:
    assert signer.check("j1", *parts(signer.sign("https://host", "j1")))


def test_it_ends_with_its_time(signer: LinkSigner, clock: ManualClock) -> None:
    address = parts(signer.sign("https://host", "j1"))
    clock.now += 60
    assert not signer.check("j1", *address)


def test_its_time_cannot_be_prolonged(signer: LinkSigner) -> None:
    _, signature = parts(signer.sign("https://host", "j1"))
    assert not signer.check("j1", "99999999999", signature)


def test_it_is_of_no_use_for_another_video(signer: LinkSigner) -> None:
    assert not signer.check("j2", *parts(signer.sign("https://host", "j1")))


def test_it_is_of_no_use_at_a_server_with_another_secret(signer: LinkSigner, clock: ManualClock) -> None:
    assert not LinkSigner("other", 60, clock).check("j1", *parts(signer.sign("https://host", "j1")))


@pytest.mark.parametrize(("expires", "signature"), [("", ""), ("soon", "x"), ("é", "é"), ("9" * 5000, "0" * 64)])
def test_anything_else_is_refused(signer: LinkSigner, expires: str, signature: str) -> None:
    assert not signer.check("j1", expires, signature)


def test_id_and_time_cannot_be_shifted_into_each_other(signer: LinkSigner) -> None:
    expires, signature = parts(signer.sign("https://host", "j1"))
    assert not signer.check("j", f"1\n{expires}", signature)


def test_an_address_of_an_earlier_version_works_until_its_end(signer: LinkSigner, clock: ManualClock) -> None:
    # Computed with `printf 'j1\n1060' | openssl dgst -sha256 -hmac secret`.
    signature = "8d16eba76115c1f96d8ce414c6e3b588bae26e60e49b6248a0ad6ca4959bfc1b"
    assert signer.check("j1", "1060", signature)
    clock.now += 60
    assert not signer.check("j1", "1060", signature)
