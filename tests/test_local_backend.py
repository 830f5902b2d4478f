"""The local backend: from a request to a file with its provenance."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.registry import get_backend
from hunyuan_local.errors import (
    ConfigError,
    GenerationCancelledError,
    HunyuanLocalError,
    InvalidOutputError,
    OutputExistsError,
)  # fmt: skip
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress
from hunyuan_local.video import probe

starts_process = pytest.mark.usefixtures("starts_process")


@pytest.fixture(scope="module")
def result(starts_process: None, tiny: LocalBackend, tmp_path_factory: pytest.TempPathFactory) -> GenerationResult:
    """One video of the large size, to which the encoder scales up."""
    request = GenerationRequest(
        prompt="a white square moving up on a navy background",
        width=640,
        height=352,
        num_frames=5,
        num_inference_steps=2,
        seed=3,
        fps=10,
    )
    return tiny.generate(request, GenerationContext(tmp_path_factory.mktemp("video") / "a.mp4"))


def test_the_file_has_the_requested_shape(result: GenerationResult) -> None:
    info = probe(result.path)
    assert (info.width, info.height, info.num_frames, info.fps) == (640, 352, 5, 10.0)


def test_the_result_names_the_seed(result: GenerationResult) -> None:
    assert result.seed == 3


@starts_process
def test_notes_are_reported_before_the_first_step(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    seen: list[str] = []
    context = GenerationContext(
        tmp_path / "a.mp4", on_progress=lambda p: seen.append(p.stage), on_note=lambda n: seen.append("note")
    )
    tiny.generate(small_request.replace(negative_prompt="dull"), context)
    assert seen.count("note") == 2 and max(i for i, t in enumerate(seen) if t == "note") < seen.index("denoise")


@starts_process
def test_a_path_may_be_text(tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path) -> None:
    assert tiny.generate(small_request, GenerationContext(str(tmp_path / "a.mp4"))).path.exists()


def test_the_scaling_is_stated_in_the_result(result: GenerationResult) -> None:
    assert [note for note in result.notes if "renders at 144x80" in note and "640x352" in note]


def test_the_scaling_is_stated_in_the_file(result: GenerationResult) -> None:
    assert read_provenance(result.path).render_size == (144, 80)


def test_the_file_says_that_the_model_is_a_test_checkpoint(result: GenerationResult) -> None:
    assert [note for note in read_provenance(result.path).notes if "test checkpoint" in note]


def test_the_file_holds_the_resolved_request(result: GenerationResult) -> None:
    assert read_provenance(result.path).request == result.request


def test_every_field_of_the_resolved_request_has_a_value(result: GenerationResult) -> None:
    open_fields = [name for name, value in result.request.model_dump().items() if value is None]
    assert open_fields == ["negative_prompt", "rewrite", "original_prompt"]


def test_every_stage_took_time(result: GenerationResult) -> None:
    timings = result.timings
    assert min(timings.encode_s, timings.denoise_s, timings.decode_s, timings.write_s) > 0
    assert timings.total_s >= timings.encode_s + timings.denoise_s + timings.decode_s + timings.write_s


@starts_process
def test_a_random_seed_is_drawn_and_can_be_repeated(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    first = tiny.generate(small_request.replace(seed=None), GenerationContext(tmp_path / "a.mp4"))
    second = tiny.generate(small_request.replace(seed=first.seed), GenerationContext(tmp_path / "b.mp4"))
    assert first.provenance["frames_sha256"] == second.provenance["frames_sha256"]


def test_an_existing_file_is_kept(tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="overwrite"):
        tiny.generate(small_request, GenerationContext(file))
    assert file.read_bytes() == b"mine"


def test_a_refused_path_loads_no_model(small_request: GenerationRequest, tmp_path: Path) -> None:
    backend = LocalBackend(model="tiny")
    with pytest.raises(ConfigError):
        backend.generate(small_request, GenerationContext(tmp_path / "no" / "a.mp4"))
    assert backend.kept.loaded is None


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
@starts_process
def test_cancelling_leaves_no_file(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path, stage: str
) -> None:
    cancel = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.stage == stage:
            cancel.set()

    with pytest.raises(GenerationCancelledError):
        tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4", on_progress=watch, cancel=cancel))
    assert list(tmp_path.iterdir()) == []


@starts_process
def test_the_backend_works_again_after_a_cancellation(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(GenerationCancelledError):
        tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4", cancel=cancel))
    assert tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4")).path.exists()


@starts_process
def test_a_second_video_is_refused_at_once_and_the_first_is_the_right_one(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    refusals: list[HunyuanLocalError] = []

    def try_another() -> None:
        with pytest.raises(HunyuanLocalError, match="one video at a time") as caught:
            tiny.generate(small_request.replace(num_frames=9), GenerationContext(tmp_path / "b.mp4"))
        refusals.append(caught.value)

    def watch(progress: Progress) -> None:
        if (progress.stage, progress.step) == ("denoise", 1):
            other = threading.Thread(target=try_another)
            other.start()
            other.join()

    alone = tiny.generate(small_request, GenerationContext(tmp_path / "alone.mp4"))
    result = tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4", on_progress=watch))
    assert len(refusals) == 1 and not (tmp_path / "b.mp4").exists()
    assert result.provenance["frames_sha256"] == alone.provenance["frames_sha256"]


def test_loading_is_refused_while_a_video_is_made(tiny: LocalBackend) -> None:
    with tiny._one_at_a_time, pytest.raises(HunyuanLocalError, match="one video at a time"):
        tiny.load()


@starts_process
def test_the_next_video_may_be_started_while_the_file_of_the_last_is_written(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    pending = [tiny.start(small_request, GenerationContext(tmp_path / f"{i}.mp4")) for i in range(2)]
    assert len({video.result().provenance["frames_sha256"] for video in pending}) == 1


@starts_process
def test_an_invalid_video_leaves_no_file(tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path) -> None:
    convolution = tiny.load().pipe.vae.decoder.conv_out.conv
    kept = convolution.weight.data.clone(), convolution.bias.data.clone()
    try:
        convolution.weight.data.zero_()
        convolution.bias.data.fill_(-1)
        with pytest.raises(InvalidOutputError, match="black"):
            tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4"))
    finally:
        convolution.weight.data.copy_(kept[0])
        convolution.bias.data.copy_(kept[1])
    assert list(tmp_path.iterdir()) == []


@starts_process
def test_progress_tells_every_stage_in_order(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4", on_progress=seen.append))
    assert list(dict.fromkeys(p.stage for p in seen)) == ["encode", "denoise", "decode", "write"]


@starts_process
def test_progress_gives_seconds_a_step_and_time_left(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    tiny.generate(small_request, GenerationContext(tmp_path / "a.mp4", on_progress=seen.append))
    steps = [p for p in seen if p.stage == "denoise" and p.step]
    assert [(p.step, p.total) for p in steps] == [(1, 2), (2, 2)]
    assert steps[0].seconds_per_step > 0 and steps[0].seconds_left > 0 and steps[1].seconds_left == 0


@starts_process
def test_the_default_file_name_holds_model_and_seed(
    tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tiny.generate(small_request)
    assert result.path.parent == tmp_path.resolve()
    assert result.path.name.startswith("tiny-") and result.path.name.endswith("-7.mp4")


@pytest.mark.usefixtures("loads_model")
def test_closing_lets_go_of_the_model() -> None:
    backend = LocalBackend(model="tiny", profile="cpu")
    backend.load()
    backend.close()
    assert backend.kept.loaded is None


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nope'.*local"):
        get_backend("nope")
