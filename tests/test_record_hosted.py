"""``scripts/record_hosted`` with the stand-in: complete, scrubbed, and readable by our dialects."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from standin import StandIn, sample_video

from hunyuan_local.wires import novita, wavespeed

ROOT = Path(__file__).resolve().parent.parent
WIRES = {"novita": novita, "wavespeed": wavespeed}


def run(service: StandIn, folder: Path, *arguments: str) -> int:
    """Run the script here; its exit code."""
    script = str(ROOT / "scripts" / "record_hosted")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [script, *arguments])
        for name in ("WAVESPEED", "NOVITA"):
            patch.setenv(f"{name}_API_KEY", service.key)
            patch.setenv(f"{name}_BASE_URL", service.url)
        patch.setenv("HUNYUAN_LOCAL_STATE_DIR", str(folder / "state"))
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            return 0 if end.code is None else end.code
    return 0


@dataclass
class Recorded:
    """The script's record of one service, and the requests that the service received."""

    document: dict
    service: StandIn


@pytest.fixture(scope="module", params=sorted(WIRES))
def recorded(
    request: pytest.FixtureRequest, starts_process: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    with StandIn(sample_video(), polls_until_done=0) as service:
        assert run(service, folder, request.param, "--yes", "--output", str(folder / "r.json")) == 0
        yield Recorded(json.loads((folder / "r.json").read_text()), service)


def test_nothing_is_billed_without_a_yes(standin: StandIn, tmp_path: Path) -> None:
    assert run(standin, tmp_path, "novita") == 2 and standin.requests == []


def test_one_video_is_billed(recorded: Recorded) -> None:
    assert len(recorded.service.submissions) == 1


def test_refusals_are_recorded_next_to_the_video(recorded: Recorded) -> None:
    statuses = {exchange["answer"]["status"] for exchange in recorded.document["exchanges"]}
    assert 200 in statuses and {status for status in statuses if status >= 400}


def test_key_ids_and_addresses_are_scrubbed(recorded: Recorded) -> None:
    text, service = json.dumps(recorded.document), recorded.service
    secrets = (service.key, service.submissions[0].task_id, service.url, "Bearer")
    assert [secret for secret in secrets if secret in text] == []


def test_the_last_answer_reads_as_a_finished_job(recorded: Recorded) -> None:
    answers = [
        exchange["answer"].get("body") for exchange in recorded.document["exchanges"] if exchange["answer"].get("body")
    ]
    view = WIRES[recorded.document["service"]].job_from_wire(answers[-1])
    assert (view.status, view.outputs) == ("succeeded", ("https://files.example/video.mp4",))


def test_an_answer_that_we_misread_is_recorded_as_well(standin: StandIn, tmp_path: Path) -> None:
    standin.inject("poll-unknown-status", 2)
    run(standin, tmp_path, "novita", "--yes", "--output", str(tmp_path / "r.json"))
    recording = json.loads((tmp_path / "r.json").read_text())
    assert "one video: InvalidAnswerError" in recording["outcomes"][-1]
