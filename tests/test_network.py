"""Proxies and certificates from the environment."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hunyuan_local.backends.registry import get_backend
from hunyuan_local.config import RewriteConfig
from hunyuan_local.config.network import advice, check_way, http_client, proxy_for, tls_context
from hunyuan_local.errors import ConfigError
from hunyuan_local.rewriting.endpoint import EndpointWriter
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.weights.hub import Hub

FAR = "https://api.example.test/v1"
VARIABLES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without network variables."""
    for name in (*VARIABLES, "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def listener() -> Iterator[str]:
    """An address where a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080/", "must be like http://host:port"),
        ("all_proxy", "ftp://proxy:21", "must be like http://host:port"),
        ("HTTPS_PROXY", "http://[::1", "is not a valid proxy address"),
        ("HTTPS_PROXY", "http://proxy:port", "is not a valid proxy address"),
        ("HTTPS_PROXY", "http://127.0.0.1:9", "the proxy cannot be reached"),
        ("ALL_PROXY", "socks5://127.0.0.1:9", "needs the package socksio"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_with_its_value_and_the_remedy(
    variable: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        http_client(FAR)
    wanted = (f"{variable}={value!r}", why, f"unset {variable}", "list api.example.test in NO_PROXY")
    assert [words for words in wanted if words not in str(caught.value)] == []


def test_a_proxy_without_a_scheme_is_one_of_http(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", listener)
    check_way(FAR)


def test_the_password_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    with pytest.raises(ConfigError) as caught:
        check_way(FAR)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://[::1]:8000", "http://localhost:1"])
def test_this_machine_needs_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080/")
    http_client(url).close()


@pytest.mark.parametrize(
    ("listed", "url", "is_direct"),
    [
        ("::1", FAR, False),
        ("[::1]", FAR, False),
        ("fd00::/8,10.0.0.0/8", FAR, False),
        ("fd00::/8", "http://[fd00::7]/", True),
        ("[fd00::7]:80", "http://[fd00::7]:80/", True),
        ("[fd00::7]:80", "http://[fd00::7]:81/", False),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("example.test", FAR, True),
        (".example.test", FAR, True),
        ("*.example.test", FAR, True),
        ("ample.test", FAR, False),
        ("api.example.test:443", "https://api.example.test:443/", True),
        ("localhost, 127.0.0.1,api.example.test", FAR, True),
        ("*", FAR, True),
        ("http://[", FAR, False),
        (",,", FAR, False),
    ],
)
def test_exceptions_from_the_proxy(listed: str, url: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", listed)
    assert (proxy_for(url) is None) == is_direct


@pytest.mark.parametrize(("variable", "kind"), [("SSL_CERT_FILE", "a file"), ("SSL_CERT_DIR", "a folder")])
def test_certificates_that_are_not_there_are_named(variable: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/nonexistent.pem")
    with pytest.raises(ConfigError, match=f"{variable}='/nonexistent.pem': is not {kind} of certificates.*unset"):
        http_client(FAR)


def test_a_file_without_certificates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(ConfigError, match=r"SSL_CERT_FILE=.*PEM format"):
        tls_context()


def test_without_tls_no_certificate_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    http_client("http://api.example.test").close()


def test_certificates_of_other_programs_are_named_where_they_would_have_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/corp.pem")
    reported = advice(FAR, OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"))
    assert "set SSL_CERT_FILE" in reported and "REQUESTS_CA_BUNDLE='/corp.pem' is not used" in reported


def test_certificates_of_other_programs_that_are_not_there_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent.pem")
    http_client(FAR).close()


# Code that uses the network


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that a VPN leaves behind."""
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080/")


def test_a_hosted_run_is_refused_before_anything_is_sent(stale: None, tmp_path: Path) -> None:
    from hunyuan_local import GenerationContext

    backend = get_backend("wavespeed", api_key="key", base_url=FAR)
    with pytest.raises(ConfigError, match="ALL_PROXY="):
        backend.generate(GenerationRequest(prompt="x"), GenerationContext(output=tmp_path / "a.mp4"))


def test_rewriting_names_the_variable(stale: None) -> None:
    writer = EndpointWriter(RewriteConfig(endpoint=FAR))
    with pytest.raises(ConfigError, match="ALL_PROXY="):
        writer.write([{"role": "user", "content": "x"}], 10, lambda: False)


def test_a_download_names_the_variable(stale: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ALL_PROXY="):
        Hub("https://hub.example.test", tmp_path).check_download("model='x'")
