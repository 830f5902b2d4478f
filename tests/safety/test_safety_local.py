"""Videos of the built-in model: flagged, withheld and accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import SafetyConfig
from hunyuan_local.errors import ContentBlockedError, ModelLoadError
from hunyuan_local.pipeline.frame_classifier import FrameClassifier
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult

pytestmark = pytest.mark.usefixtures("starts_process")  # frames are encoded

Check = Callable[..., SafetyConfig]
RED, BLUE = (
    GenerationRequest(
        prompt=f"a {colour} circle moving right on a black background", width=144, height=80, num_frames=5,
        num_inference_steps=2, seed=7,
    )
    for colour in ("red", "blue")
)  # fmt: skip


@pytest.fixture(scope="module")
def reported() -> list[str]:
    """The notes during the generation of the flagged video."""
    return []


@pytest.fixture(scope="module")
def flagged(
    tiny: LocalBackend, check: Check, reported: list[str], tmp_path_factory: pytest.TempPathFactory
) -> GenerationResult:
    path = tmp_path_factory.mktemp("flagged") / "a.mp4"
    return tiny.generate(RED, GenerationContext(path, safety=check("flag"), on_note=reported.append))


@pytest.fixture(scope="module")
def unchecked(tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> GenerationResult:
    return tiny.generate(RED, GenerationContext(tmp_path_factory.mktemp("unchecked") / "a.mp4"))


def test_a_red_video_is_flagged_and_delivered(flagged: GenerationResult) -> None:
    assert (flagged.safety.flagged, flagged.safety.frames, flagged.path.exists()) == (True, 5, True)


def test_a_classifier_that_fails_in_the_end_loses_no_video_that_it_only_flags(
    tiny: LocalBackend, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(FrameClassifier, "classify", fail)
    result = tiny.generate(RED, GenerationContext(tmp_path / "a.mp4", safety=check("flag")))
    note = "the safety check was not made: the classifier failed: RuntimeError: no memory"
    assert (read_provenance(result.path).safety, note in read_provenance(result.path).notes) == (None, True)


def test_its_file_says_so(flagged: GenerationResult) -> None:
    assert read_provenance(flagged.path).safety == flagged.safety


def test_so_does_a_note_in_the_result(flagged: GenerationResult) -> None:
    assert [note for note in flagged.notes if "flagged this video" in note]


def test_the_file_has_the_same_notes(flagged: GenerationResult) -> None:
    assert read_provenance(flagged.path).notes == flagged.notes


def test_the_user_is_notified_once(flagged: GenerationResult, reported: list[str]) -> None:
    assert len([note for note in reported if "flagged this video" in note]) == 1


def test_a_blue_video_passes_and_that_is_in_the_file(tiny: LocalBackend, check: Check, tmp_path: Path) -> None:
    result = tiny.generate(BLUE, GenerationContext(tmp_path / "a.mp4", safety=check("block")))
    assert (read_provenance(result.path).safety.flagged, result.safety.flagged) == (False, False)


def test_without_a_check_the_field_is_empty(unchecked: GenerationResult) -> None:
    assert (unchecked.safety, read_provenance(unchecked.path).safety) == (None, None)


def test_the_check_does_not_change_the_frames(flagged: GenerationResult, unchecked: GenerationResult) -> None:
    assert unchecked.provenance["frames_sha256"] == flagged.provenance["frames_sha256"]


def test_of_a_withheld_video_nothing_is_left(tiny: LocalBackend, check: Check, tmp_path: Path) -> None:
    context = GenerationContext(
        tmp_path / "a.mp4", safety=check("block"), checkpoint_dir=tmp_path, checkpoint_every=1, preview_every=1
    )
    with pytest.raises(ContentBlockedError, match="blocked this video"):
        tiny.generate(RED, context)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_before_stays(tiny: LocalBackend, check: Check, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("mine")
    with pytest.raises(ContentBlockedError):
        tiny.generate(RED, GenerationContext(tmp_path / "a.mp4", overwrite=True, safety=check("block")))
    assert (tmp_path / "a.mp4").read_text() == "mine"


def test_after_a_withheld_video_the_next_one_is_made(tiny: LocalBackend, check: Check, tmp_path: Path) -> None:
    with pytest.raises(ContentBlockedError):
        tiny.generate(RED, GenerationContext(tmp_path / "a.mp4", safety=check("block")))
    assert tiny.generate(BLUE, GenerationContext(tmp_path / "a.mp4", safety=check("block"))).path.exists()


def test_a_missing_classifier_costs_no_step(tiny: LocalBackend, check: Check, tmp_path: Path) -> None:
    stages: set[str] = set()
    context = GenerationContext(
        tmp_path / "a.mp4", safety=check(model_id=f"{tmp_path}/none"), on_progress=lambda p: stages.add(p.stage)
    )
    with pytest.raises(ModelLoadError, match="none"):
        tiny.generate(RED, context)
    assert stages == set()
