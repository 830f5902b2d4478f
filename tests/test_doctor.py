"""The doctor: complete, correct, and never stopped by its findings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from hunyuan_local.cli.commands import doctor
from hunyuan_local.errors import TokenizerMismatchError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def findings(starts_process: None) -> list[doctor.Finding]:
    return list(doctor.examine())


def test_nothing_is_wrong_in_the_tested_environment(findings: list[doctor.Finding]) -> None:
    assert [f for f in findings if f.verdict == "wrong"] == []


@pytest.mark.parametrize(
    "what", ["python", "torch", "allocator", "profile", "ffmpeg", "hub cache", "model tiny", "tokenizer tiny"]
)
def test_the_round_is_complete(findings: list[doctor.Finding], what: str) -> None:
    assert [f for f in findings if f.what == what]


def test_tested_versions_are_those_of_the_constraints() -> None:
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text()))
    assert {name: pinned[name] for name in doctor.TESTED} == doctor.TESTED


def test_another_version_is_a_warning_with_the_tested_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    assert doctor._library("torch", "2.13.0").verdict == "warning"


@pytest.mark.usefixtures("starts_process")
def test_a_failing_check_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise TokenizerMismatchError("it misreads prompts")

    monkeypatch.setattr("hunyuan_local.pipeline.text.tokenizers.load_llama_tokenizer", fail)
    wrong = [f for f in doctor.examine() if f.verdict == "wrong"]
    assert [(f.what, f.found) for f in wrong] == [("model tiny", "it misreads prompts")]


def test_what_is_wrong_makes_the_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Finding("x", "y", "wrong", "z")]))
    assert CliRunner().invoke(doctor.command).exit_code == 1


def test_json_holds_every_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter([doctor.Finding("x", "y")]))
    answer = json.loads(CliRunner().invoke(doctor.command, ["--json"]).stdout)
    assert answer == [{"what": "x", "found": "y", "verdict": "ok", "remedy": ""}]
