"""Targets of a bench: parsing, labels, and whether they are billed."""

from __future__ import annotations

import pytest

from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.bench.run.targets import check_labels, hosted_target, is_service, local_target, parse_targets
from hunyuan_local.config import LoraConfig, load_model_config, load_profile
from hunyuan_local.errors import ConfigError


def test_a_service_at_two_addresses_is_two_targets() -> None:
    found = parse_targets(["local", "novita", "novita=http://127.0.0.1:8000/"])
    assert found == [("local", None), ("novita", None), ("novita", "http://127.0.0.1:8000")]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "give at least one backend to measure"),
        (["wavespede"], "'wavespede': unknown; use local, novita, wavespeed"),
        (["local=http://127.0.0.1:1"], "has no URL"),
        (["novita=ftp://x"], "base_url='ftp://x'"),
        (["novita="], "base_url"),
        (["novita", "novita"], "more than once"),
    ],
)
def test_invalid_targets_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_targets(texts)


@pytest.mark.parametrize(
    ("url", "billed"),
    [
        ("https://api.wavespeed.ai", True),
        ("https://API.wavespeed.AI.:443/v9", True),
        ("http://eu.api.wavespeed.ai", True),
        ("https://wavespeed.ai", True),
        ("https://api.wavespeed.ai.evil.example", False),
        ("https://mywavespeed.ai", False),
        ("http://127.0.0.1:8000", False),
        ("https://api.novita.ai", False),
    ],
)
def test_all_that_goes_to_the_services_domain_is_billed(url: str, billed: bool) -> None:
    assert is_service(url, WaveSpeedBackend.default_url) is billed


def test_the_service_itself_is_identified() -> None:
    target = hosted_target(NovitaBackend("key"))
    assert (target.label, target.is_billed) == ("novita", True)
    assert "the service itself at https://api.novita.ai" in target.origin


def test_another_address_is_not_the_service() -> None:
    target = hosted_target(NovitaBackend("key", "http://127.0.0.1:8000"))
    assert (target.label, target.is_billed) == ("novita at http://127.0.0.1:8000", False)
    assert "not the service" in target.origin and "judging by its URL" in target.origin


def test_an_address_from_the_environment_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOVITA_BASE_URL", "http://127.0.0.1:8000")
    usual, named = hosted_target(NovitaBackend("key")), hosted_target(NovitaBackend("key", "http://127.0.0.1:8000"))
    assert not usual.is_billed
    with pytest.raises(ConfigError, match=r"novita at .*more than once"):
        check_labels([usual, named])


def test_what_changes_the_videos_changes_the_identity() -> None:
    tiny = load_model_config("tiny")
    scaled = tiny.model_copy(update={"lora": (LoraConfig(path="a.safetensors", scale=0.5),)})
    cpu = load_profile("cpu")
    eager = cpu.model_copy(update={"compile": not cpu.compile})
    found = [
        local_target(tiny, None, None, "w"),
        local_target(scaled, None, None, "w"),
        local_target(tiny, cpu, None, "w"),
        local_target(tiny, eager, None, "w"),
        local_target(tiny, None, "first-block-conservative", "w"),
        local_target(tiny, None, None, "other weights"),
    ]
    assert len({target.identity for target in found}) == len(found)
