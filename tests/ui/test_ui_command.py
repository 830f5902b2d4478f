"""``hunyuan-local ui``: what it prints and opens; test_page_in_browser.py starts the server itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import run_here

from hunyuan_local.cli.commands import ui


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = run_here(
        "ui", "--model", "tiny", "--port", "0", "--no-browser", "--data-dir", tmp_path / "data", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "hunyuan-local[ui]" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "reachable"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("http://[::]:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_the_browser_is_sent_to_an_address_that_it_can_reach(address: str, reachable: str) -> None:
    assert ui._reachable(address) == reachable


@pytest.mark.parametrize(("display", "has_screen"), [("", False), (":0", True)])
def test_on_a_machine_without_a_screen_no_browser_is_opened(
    monkeypatch: pytest.MonkeyPatch, display: str, has_screen: bool
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert ui._has_screen() is has_screen
