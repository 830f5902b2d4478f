"""``scripts/record_hosted`` against the stand-in: complete, scrubbed, and readable by our dialects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standin import StandIn

from hunyuan_local.wires import novita, wavespeed

ROOT = Path(__file__).resolve().parent.parent
WIRES = {"novita": novita, "wavespeed": wavespeed}


def run(service: StandIn, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = ("WAVESPEED", "NOVITA")
    environment = (
        os.environ | {f"{n}_API_KEY": service.key for n in names} | {f"{n}_BASE_URL": service.url for n in names}
    )
    script = [sys.executable, ROOT / "scripts" / "record_hosted"]
    return subprocess.run([*script, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(params=sorted(WIRES))
def recording(request: pytest.FixtureRequest, standin: StandIn, tmp_path: Path) -> dict:
    done = run(standin, tmp_path, request.param, "--yes", "--output", str(tmp_path / "r.json"))
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "r.json").read_text())


def test_nothing_is_billed_without_a_yes(standin: StandIn, tmp_path: Path) -> None:
    assert run(standin, tmp_path, "novita").returncode == 2 and standin.requests == []


def test_one_video_is_billed(recording: dict, standin: StandIn) -> None:
    assert len(standin.submissions) == 1


def test_refusals_are_recorded_beside_the_video(recording: dict) -> None:
    statuses = {exchange["answer"]["status"] for exchange in recording["exchanges"]}
    assert 200 in statuses and {status for status in statuses if status >= 400}


def test_key_ids_and_addresses_are_scrubbed(recording: dict, standin: StandIn) -> None:
    text = json.dumps(recording)
    secrets = (standin.key, standin.submissions[0].task_id, standin.url, "Bearer")
    assert [secret for secret in secrets if secret in text] == []


def test_the_last_answer_reads_as_a_finished_job(recording: dict) -> None:
    answers = [exchange["answer"].get("body") for exchange in recording["exchanges"] if exchange["answer"].get("body")]
    view = WIRES[recording["service"]].job_from_wire(answers[-1])
    assert (view.status, view.outputs) == ("succeeded", ("https://files.example/video.mp4",))


def test_an_answer_that_we_misread_is_recorded_as_well(standin: StandIn, tmp_path: Path) -> None:
    standin.inject("poll-unknown-status", 2)
    run(standin, tmp_path, "novita", "--yes", "--output", str(tmp_path / "r.json"))
    recording = json.loads((tmp_path / "r.json").read_text())
    assert "one video: InvalidAnswerError" in recording["outcomes"][-1]
