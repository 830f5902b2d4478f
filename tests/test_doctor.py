"""The doctor: complete, correct, and never stopped by its findings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from hunyuan_local.cli.commands import doctor
from hunyuan_local.errors import TokenizerMismatchError
from hunyuan_local.pipeline.memory.device import CudaDevice

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


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (CudaDevice("NVIDIA H100 80GB HBM3", 79 * 2**30, (9, 0)), "NVIDIA H100 80GB HBM3, 79.0 GiB"),
        (
            CudaDevice("AMD Instinct MI300X", 192 * 2**30, (9, 4), "7.0"),
            "AMD Instinct MI300X, 192.0 GiB, ROCm 7.0; this package has not been tried on AMD's GPUs",
        ),
        (
            CudaDevice("NVIDIA GeForce RTX 5090 Laptop GPU", 24 * 2**30, (12, 0)),
            "NVIDIA GeForce RTX 5090 Laptop GPU, 24.0 GiB; not in the list of known GPUs: times are a guess, NVIDIA "
            "GeForce RTX 5090 32 GB times 0.4 to 1.4",
        ),
    ],
)
def test_a_gpu_is_reported_as_what_it_is(device: CudaDevice, said: str) -> None:
    assert doctor._device(0, device).found == said
