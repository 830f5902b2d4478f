"""Interrupting and resuming a video: the same frames, and no step is repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import run_here
from manual_clock import ManualClock

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import load_profile
from hunyuan_local.errors import ConfigError, GenerationCancelledError, InvalidOutputError
from hunyuan_local.pipeline import decode
from hunyuan_local.pipeline.checkpoint import UNSAVED_S, Checkpoint, SavedState
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress

REQUEST = GenerationRequest(
    prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
    num_inference_steps=4, seed=7,
)  # fmt: skip
CPU = load_profile("cpu")
STATE = SavedState(2, torch.zeros(1, 16, 2, 10, 18), torch.Generator().get_state())


@pytest.fixture
def make(starts_process: None, tiny: LocalBackend, tmp_path: Path) -> Callable[..., GenerationResult]:
    """Generates the video, saving the state after every step; stops after ``stop_after`` steps."""

    def make(
        request: GenerationRequest = REQUEST,
        stop_after: int | None = None,
        backend: LocalBackend = tiny,
        **options: object,
    ) -> GenerationResult:
        given = {"checkpoint_dir": tmp_path / "states", "checkpoint_every": 1} | options
        context = GenerationContext(tmp_path / "a.mp4", **given)
        tell = context.on_progress

        def on_progress(progress: Progress) -> None:
            tell(progress)
            if progress.stage == "denoise" and progress.step == stop_after:
                context.cancel.set()

        context.on_progress = on_progress
        return backend.generate(request, context)

    return make


@pytest.fixture(scope="module")
def in_bfloat16(loads_model: None) -> LocalBackend:
    """The same model with its transformer in the precision of GPUs."""
    dtypes = CPU.dtypes.model_copy(update={"transformer": "bfloat16"})
    return LocalBackend(model="tiny", profile=CPU.model_copy(update={"dtypes": dtypes}))


@pytest.fixture(scope="module")
def whole(tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the frames of an uninterrupted run."""
    result = tiny.generate(REQUEST, GenerationContext(tmp_path_factory.mktemp("whole") / "whole.mp4"))
    return result.provenance["frames_sha256"]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_frames_are_those_of_an_undisturbed_run(make: Callable, whole: str, steps: int) -> None:
    with pytest.raises(GenerationCancelledError):
        make(stop_after=steps)
    assert make().provenance["frames_sha256"] == whole


@pytest.mark.parametrize("steps", [2, 4])
def test_so_they_are_in_bfloat16_where_the_latents_are_rounded(
    make: Callable, in_bfloat16: LocalBackend, tmp_path: Path, steps: int
) -> None:
    request = REQUEST.replace(num_inference_steps=6)  # whose timesteps bfloat16 cannot represent
    undisturbed = in_bfloat16.generate(request, GenerationContext(tmp_path / "b.mp4"))
    with pytest.raises(GenerationCancelledError):
        make(request, stop_after=steps, backend=in_bfloat16)
    resumed = make(request, backend=in_bfloat16)
    assert resumed.provenance["frames_sha256"] == undisturbed.provenance["frames_sha256"]


def test_saving_changes_nothing(make: Callable, whole: str) -> None:
    assert make().provenance["frames_sha256"] == whole


def test_true_guidance_is_resumed_as_well(make: Callable, tiny: LocalBackend, tmp_path: Path) -> None:
    request = REQUEST.replace(negative_prompt="a blue square", true_cfg_scale=2.0)
    with pytest.raises(GenerationCancelledError):
        make(request, stop_after=2)
    undisturbed = tiny.generate(request, GenerationContext(tmp_path / "b.mp4"))
    assert make(request).provenance["frames_sha256"] == undisturbed.provenance["frames_sha256"]


def test_finished_steps_are_not_made_again(make: Callable) -> None:
    with pytest.raises(GenerationCancelledError):
        make(stop_after=3)
    steps: list[int] = []
    make(on_progress=lambda p: steps.append(p.step) if p.stage == "denoise" else None)
    assert steps == [3, 4]


def test_after_a_failed_decoding_only_the_decoding_is_repeated(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the driver is gone")

    with monkeypatch.context() as patch:
        patch.setattr(decode, "decode", fail)
        with pytest.raises(RuntimeError):
            make()
    stages: list[str] = []
    make(on_progress=lambda p: stages.append(p.stage))
    assert "decode" in stages and not {"encode", "denoise"} & set(stages)


def test_a_drawn_seed_is_kept(make: Callable) -> None:
    drawn = REQUEST.replace(seed=None)
    with pytest.raises(GenerationCancelledError):
        make(drawn, stop_after=2)
    notes: list[str] = []
    make(drawn, on_note=notes.append)
    assert [note for note in notes if note.startswith("resuming after step 2")]


def test_going_on_is_reported_in_the_file(make: Callable) -> None:
    with pytest.raises(GenerationCancelledError):
        make(stop_after=2)
    assert [note for note in read_provenance(make().path).notes if "after step 2" in note]


def test_nothing_is_left_of_a_finished_video(make: Callable, tmp_path: Path) -> None:
    make()
    assert list((tmp_path / "states").iterdir()) == []


def test_another_request_starts_from_the_beginning(make: Callable) -> None:
    with pytest.raises(GenerationCancelledError):
        make(stop_after=2)
    steps: list[int] = []
    make(REQUEST.replace(prompt="a blue circle"), on_progress=lambda p: steps.append(p.step))
    assert 1 in steps


def test_the_state_is_saved_every_n_steps(make: Callable, tmp_path: Path) -> None:
    saved: list[bool] = []

    def look(progress: Progress) -> None:
        if progress.stage == "denoise" and progress.step:
            saved.append(any((tmp_path / "states").glob("*.safetensors")))

    make(checkpoint_every=2, on_progress=look)
    assert saved == [False, True, True, True]


@pytest.fixture
def by_time(tmp_path: Path, clock: ManualClock) -> Checkpoint:
    """A checkpoint that saves by time, of a video that starts now."""
    return Checkpoint(tmp_path, "k", clock=clock)


def state_after(step: int) -> SavedState:
    return SavedState(step, STATE.latents, STATE.generator)


def test_steps_of_less_than_half_a_minute_are_not_saved(by_time: Checkpoint, clock: ManualClock) -> None:
    clock.now += UNSAVED_S - 1
    by_time.keep(state_after(99), total=100, seed=7)
    assert not by_time.path.exists()


def test_the_step_with_which_half_a_minute_is_over_is_saved(by_time: Checkpoint, clock: ManualClock) -> None:
    clock.now += UNSAVED_S
    by_time.keep(state_after(1), total=100, seed=7)
    assert Checkpoint(by_time.path.parent, "k").load()[0].step == 1


def test_half_a_minute_counts_from_the_last_saved_state(by_time: Checkpoint, clock: ManualClock) -> None:
    for step in (1, 2, 3):
        clock.now += UNSAVED_S * 2 / 3
        by_time.keep(state_after(step), total=100, seed=7)
    assert Checkpoint(by_time.path.parent, "k").load()[0].step == 2


def test_a_step_that_takes_long_is_saved_each_time(by_time: Checkpoint, clock: ManualClock) -> None:
    saved = []
    for step in (1, 2, 3):
        clock.now += 10 * UNSAVED_S
        by_time.keep(state_after(step), total=100, seed=7)
        saved.append(Checkpoint(by_time.path.parent, "k").load()[0].step)
    assert saved == [1, 2, 3]


def test_by_time_a_short_video_is_saved_after_its_last_step_alone(make: Callable, tmp_path: Path) -> None:
    saved: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if any(tmp_path.glob("states/*.safetensors")):
            saved.append(progress)

    make(checkpoint_every=None, on_progress=on_progress)
    assert (saved[0].stage, saved[0].step) == ("denoise", saved[0].total)


@pytest.mark.parametrize("steps", [1, 3])
def test_by_time_a_cancelled_video_loses_no_step(make: Callable, whole: str, steps: int) -> None:
    with pytest.raises(GenerationCancelledError):
        make(stop_after=steps, checkpoint_every=None)
    result = make(checkpoint_every=None)
    assert result.provenance["frames_sha256"] == whole
    assert [note for note in result.notes if f"resuming after step {steps}," in note]


def test_by_time_a_video_that_is_cancelled_while_it_is_decoded_loses_no_step(make: Callable, whole: str) -> None:
    stop = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.stage == "decode":
            stop.set()

    with pytest.raises(GenerationCancelledError):
        make(checkpoint_every=None, on_progress=on_progress, cancel=stop)
    stages: list[str] = []
    again = make(checkpoint_every=None, on_progress=lambda p: stages.append(p.stage))
    assert "denoise" not in stages and again.provenance["frames_sha256"] == whole


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A folder that cannot be created."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "states"


def test_a_state_that_cannot_be_saved_does_not_hide_what_went_wrong(make: Callable, nowhere: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.step == 1:
            raise RuntimeError("the driver is gone")

    notes: list[str] = []
    with pytest.raises(RuntimeError, match="the driver is gone"):
        make(checkpoint_every=None, checkpoint_dir=nowhere, on_progress=fail, on_note=notes.append)
    assert any(note.startswith(f"{nowhere}: the state of the video cannot be saved") for note in notes)


def test_a_cancelled_video_says_that_its_state_cannot_be_saved(make: Callable, nowhere: Path) -> None:
    with pytest.raises(GenerationCancelledError, match=r"cancelled after step 2 of 4.*the state .* cannot be saved"):
        make(checkpoint_every=None, checkpoint_dir=nowhere, stop_after=2)


def test_a_state_that_cannot_be_saved_is_reported_once(nowhere: Path) -> None:
    checkpoint = Checkpoint(nowhere, "k", every=1)
    with pytest.raises(ConfigError) as caught:
        checkpoint.keep(STATE, total=2, seed=7)
    checkpoint.rescue(7, caught.value, pytest.fail)
    assert caught.value.hint == ""


def test_a_damaged_state_is_noted_and_not_used(make: Callable, whole: str, tmp_path: Path) -> None:
    with pytest.raises(GenerationCancelledError):
        make(stop_after=2)
    state = next((tmp_path / "states").iterdir())
    state.write_bytes(state.read_bytes()[:500])
    result = make()
    assert [n for n in result.notes if "damaged" in n] and result.provenance["frames_sha256"] == whole


def test_a_state_of_other_weights_is_not_used(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "k", every=1)
    checkpoint.facts = {"weights": "a"}
    checkpoint.keep(STATE, total=2, seed=7)
    other = Checkpoint(tmp_path, "k")
    other.facts = {"weights": "b"}
    state, problem = other.load()
    assert state is None and "different: weights" in problem


def test_an_invalid_video_is_not_decoded_again(make: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise InvalidOutputError("black")

    monkeypatch.setattr(decode, "decode", refuse)
    with pytest.raises(InvalidOutputError):
        make()
    assert list((tmp_path / "states").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(nowhere: Path) -> None:
    with pytest.raises(ConfigError, match="--checkpoint-dir"):
        Checkpoint(nowhere, "k", every=1).keep(STATE, total=2, seed=7)


def test_zero_steps_between_states_are_refused() -> None:
    with pytest.raises(ConfigError, match="checkpoint_every=0"):
        GenerationContext(checkpoint_every=0)


# Generates a video, and exits as after kill -9 once the state after the second step is on disk.
KILLED = """
import os, signal
from hunyuan_local.cli.main import main
from hunyuan_local.pipeline.checkpoint import Checkpoint

keep = Checkpoint.keep

def keep_and_die(checkpoint, state, *arguments, **options):
    keep(checkpoint, state, *arguments, **options)
    if state.step == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.keep = keep_and_die
main()
"""


@pytest.mark.usefixtures("starts_process")
def test_after_kill_9_the_same_command_continues(tmp_path: Path) -> None:
    command = ["generate", REQUEST.prompt, "--model", "tiny", "--size", "144*80", "--num-frames", "5",
               "--num-inference-steps", "4", "--seed", "1", "-o", "a.mp4", "--checkpoint-dir", "s",
               "--checkpoint-every", "1"]  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], cwd=tmp_path, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = run_here(*command, cwd=tmp_path)
    assert again.returncode == 0 and "resuming after step 2" in again.stderr


def test_a_state_that_cannot_be_deleted_fails_no_finished_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError("the folder is read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    Checkpoint(tmp_path, "0").delete()
