"""Whether a Hub language model is in the cache; a server offers rewriting only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hunyuan_local.weights.cache import Hub, is_here

MODEL = "some/writer"


@pytest.fixture
def hub(cache: Path) -> Hub:
    return replace(Hub.default(), cache=cache)


def test_nothing_is_in_an_empty_cache(hub: Hub) -> None:
    assert not is_here(MODEL, hub)


def test_a_snapshot_with_its_config_is_here(hub: Hub) -> None:
    repository = hub.cache / "models--some--writer"
    for name, text in {"refs/main": "abc", "snapshots/abc/config.json": "{}"}.items():
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text(text)
    assert is_here(MODEL, hub) and not is_here("some/other", hub)


def test_a_download_that_has_only_begun_is_not_here(hub: Hub) -> None:
    (hub.cache / "models--some--writer" / "blobs").mkdir(parents=True)
    assert not is_here(MODEL, hub)
