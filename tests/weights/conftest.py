"""A user of the Hub with an empty cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No state and no cache but this test's, and a network that is on."""
    monkeypatch.setenv("HUNYUAN_LOCAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without long pauses: before the next attempt, and for threads that hang on a stalled connection."""
    monkeypatch.setattr("hunyuan_local.weights.transfer.PAUSE_S", 0.01)
    monkeypatch.setattr("hunyuan_local.weights.download._GRACE_S", 0.1)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"
