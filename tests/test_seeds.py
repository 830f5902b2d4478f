"""Seeds with JSON readers that store every number as a double: browsers, Node, jq."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hunyuan_local.backends import base
from hunyuan_local.backends.base import with_seed
from hunyuan_local.bench.results.result import BenchRun
from hunyuan_local.capabilities import Capabilities
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.provenance import ModelIdentity, Provenance, statement
from hunyuan_local.schema import GenerationRequest, GenerationResult, JobView, Timings, VideoInfo, seed_text
from hunyuan_local.wires import novita, openai, wavespeed

EXACT = 2**53 - 1
BEYOND = [2**53, 2**53 + 1, 2**63, 2**64 - 1]
OPEN = GenerationRequest(prompt="a fox")


def in_javascript(text: str) -> Any:
    """A JSON text as JavaScript parses it."""
    return json.loads(text, parse_int=float)


def statement_of(seed: int) -> Provenance:
    return statement(
        backend="local",
        request=OPEN.replace(seed=seed),
        model=ModelIdentity(),
        timings=Timings(),
        frames_sha256="0" * 64,
    )


def result_of(seed: int) -> GenerationResult:
    return GenerationResult(
        path=Path("a.mp4"), backend="local", model="tiny", seed=seed, request=OPEN.replace(seed=seed),
        video=VideoInfo(16, 16, 1, 24.0, 1 / 24, "h264", "yuv420p"), timings=Timings(),
        provenance=statement_of(seed).model_dump(mode="json"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "highest"),
    [
        (Capabilities(), EXACT),
        (openai.CAPABILITIES, EXACT),
        (wavespeed.CAPABILITIES, 2**31 - 1),
        (novita.CAPABILITIES, 9_999_999_999),
    ],
)
def test_the_highest_seed_that_is_drawn(monkeypatch: pytest.MonkeyPatch, limits: Capabilities, highest: int) -> None:
    monkeypatch.setattr(base.secrets, "randbelow", lambda count: count - 1)
    drawn = with_seed(OPEN, limits).seed
    assert drawn == highest and int(in_javascript(json.dumps(drawn))) == drawn


@pytest.mark.parametrize("seed", BEYOND)
def test_a_seed_that_is_given_stays(seed: int) -> None:
    assert with_seed(OPEN.replace(seed=seed), Capabilities()).seed == seed


@pytest.mark.parametrize("seed", BEYOND)
def test_every_result_of_ours_has_a_large_seed_as_a_text(tmp_path: Path, seed: int) -> None:
    store = DataFolder(tmp_path).store()
    job = store.enqueue(OPEN.replace(seed=seed), "tiny")
    run = BenchRun(
        backend="local", scenario="s", request=OPEN.replace(seed=seed), repeat=0, status="succeeded", started_at="now"
    )
    for reported in (result_of(seed), statement_of(seed), job, run):
        assert in_javascript(reported.model_dump_json())["seed_text"] == str(seed), type(reported).__name__
        assert reported.model_dump(mode="json")["seed_text"] == str(seed)
    assert in_javascript(result_of(seed).model_dump_json())["provenance"]["seed_text"] == str(seed)


def test_what_can_be_read_exactly_stands_once(tmp_path: Path) -> None:
    job = DataFolder(tmp_path).store().enqueue(OPEN.replace(seed=EXACT), "tiny")
    for reported in (result_of(EXACT), statement_of(EXACT), job):
        assert "seed_text" not in reported.model_dump_json()
    assert seed_text(None) is None


def test_the_text_is_that_of_the_seed_that_was_used(tmp_path: Path) -> None:
    store = DataFolder(tmp_path).store()
    store.enqueue(OPEN.replace(seed=1), "tiny")
    job = store.claim("w", "tiny", 10)
    store.succeed(job, {"seed": 2**60})
    assert store.get(job.job_id).model_dump()["seed_text"] == str(2**60)


@pytest.mark.parametrize("seed", [7, 2**64 - 1])
def test_what_was_written_is_read_again(seed: int) -> None:
    kept = statement_of(seed)
    assert Provenance(**json.loads(kept.model_dump_json())) == kept
    run = BenchRun(
        backend="local", scenario="s", request=OPEN.replace(seed=seed), repeat=0, status="succeeded", started_at="now"
    )
    assert BenchRun.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize("seed", [7, 2**64 - 1])
def test_no_request_has_the_text(seed: int) -> None:
    request = OPEN.replace(seed=seed)
    assert "seed_text" not in request.model_dump_json()
    assert "seed_text" not in json.dumps(openai.request_to_wire(request).body)


def test_the_state_of_an_openai_video_has_it_too() -> None:
    large, small = (
        openai.job_to_wire(JobView(job_id="v", status="succeeded", seed=seed), "").to_json() for seed in (2**60, EXACT)
    )
    assert (large["seed"], large["seed_text"]) == (2**60, str(2**60))
    assert small["seed"] == EXACT and "seed_text" not in small


def test_the_text_of_a_seed_asks_for_the_same_seed() -> None:
    assert openai.request_from_wire({"prompt": "a fox", "seed": str(2**60)}).request.seed == 2**60
