"""One contract for every backend: the local one with the built-in model, the hosted ones with a stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosted_settings import QUICK
from standin import StandIn, sample_video

from hunyuan_local.backends.base import Backend, GenerationContext
from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.backends.registry import backend_names, get_backend, option_names
from hunyuan_local.errors import ConfigError, GenerationCancelledError, HunyuanLocalError, OutputExistsError
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress
from hunyuan_local.video import probe

REQUEST = GenerationRequest(prompt="a red circle moving right on a black background", seed=7, num_inference_steps=2)
SMALL = {"width": 144, "height": 80, "num_frames": 5}  # smaller than any service accepts, and done in a second on a CPU


@dataclass
class Subject:
    """A backend, and the smallest request that it accepts."""

    backend: Backend
    request: GenerationRequest


@pytest.fixture(scope="module")
def services() -> Iterator[StandIn]:
    """Both hosted services for all tests of this file; no test changes their state."""
    with StandIn(sample_video()) as service:
        yield service


@pytest.fixture(params=["local", "novita", "wavespeed"], scope="module")
def subject(
    starts_process: None, request: pytest.FixtureRequest, services: StandIn, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    hosted = {"novita": NovitaBackend, "wavespeed": WaveSpeedBackend}
    if request.param == "local":
        yield Subject(request.getfixturevalue("tiny"), REQUEST.replace(**SMALL))
        return
    open_tasks = OpenTasks(tmp_path_factory.mktemp("state"))
    backend = hosted[request.param](services.key, services.url, pacing=QUICK, open_tasks=open_tasks)
    yield Subject(backend, REQUEST)
    backend.close()


@dataclass
class Made:
    """A finished video, the requested path, and the reported progress."""

    result: GenerationResult
    path: Path
    received: list[Progress]


@pytest.fixture(scope="module")
def made(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The small video, generated once for all tests that inspect it."""
    path, received = tmp_path_factory.mktemp("made") / "a.mp4", []
    result = subject.backend.generate(subject.request, GenerationContext(path, on_progress=received.append))
    return Made(result, path, received)


@pytest.fixture
def make(subject: Subject, tmp_path: Path) -> Callable[..., GenerationResult]:
    """Generates the small video; keyword arguments go to the context."""

    def make(**options: object) -> GenerationResult:
        return subject.backend.generate(subject.request, GenerationContext(tmp_path / "a.mp4", **options))

    return make


def test_every_backend_is_under_this_contract() -> None:
    assert backend_names() == ["local", "novita", "wavespeed"]


def test_the_file_is_where_it_was_asked_for(made: Made) -> None:
    assert made.result.path == made.path


def test_the_result_says_what_the_file_holds(made: Made) -> None:
    assert made.result.video == probe(made.path)


def test_the_result_names_the_backend(made: Made, subject: Subject) -> None:
    assert made.result.backend == subject.backend.name


def test_the_seed_is_the_one_that_was_asked_for(made: Made) -> None:
    assert made.result.seed == 7


def test_a_drawn_seed_is_reported(subject: Subject, tmp_path: Path) -> None:
    request = subject.request.replace(seed=None)
    result = subject.backend.generate(request, GenerationContext(tmp_path / "a.mp4"))
    assert result.seed == result.request.seed >= 0


def test_what_was_left_open_is_filled_in(made: Made) -> None:
    request = made.result.request
    assert None not in (request.width, request.height, request.num_inference_steps)


def test_the_file_carries_the_statement_of_the_result(made: Made) -> None:
    assert read_provenance(made.path).model_dump(mode="json") == made.result.provenance


def test_results_have_one_shape(made: Made) -> None:
    document = made.result.model_dump(mode="json")
    assert _shape(document) == {
        *(f"{name}" for name in GenerationResult.model_fields),
        *(f"request.{name}" for name in GenerationRequest.model_fields if not name.startswith("image")),
        *(f"timings.{name}" for name in document["timings"]),
        *(f"video.{name}" for name in ("width", "height", "num_frames", "fps", "duration_s", "codec", "pixel_format")),
        *(f"provenance.{name}" for name in (
            "format", "created_at", "backend", "request", "model", "profile", "device", "render_size", "remote",
            "runtime", "versions", "timings", "frames_sha256", "file_sha256", "notes", "recoveries", "safety",
        )),
    }  # fmt: skip


def test_the_total_covers_the_stages(made: Made) -> None:
    timings = made.result.timings
    assert sum(timings.model_dump(exclude={"total_s", "denoise_steps"}).values()) <= timings.total_s + 0.2


def test_progress_ends_with_writing(made: Made) -> None:
    assert made.received[-1].stage == "write"


def test_a_taken_name_is_refused(make: Callable[..., GenerationResult], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("mine")
    with pytest.raises(OutputExistsError):
        make()


def test_a_taken_name_is_replaced_on_request(make: Callable[..., GenerationResult], tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("mine")
    assert probe(make(overwrite=True).path).num_frames == 5


def test_a_missing_folder_is_refused(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        subject.backend.generate(subject.request, GenerationContext(tmp_path / "none" / "a.mp4"))


def test_cancelling_leaves_no_file(make: Callable[..., GenerationResult], subject: Subject, tmp_path: Path) -> None:
    context = GenerationContext(tmp_path / "a.mp4")
    context.on_progress = lambda progress: context.cancel.set()
    with pytest.raises(GenerationCancelledError):
        subject.backend.generate(subject.request, context)
    assert not (tmp_path / "a.mp4").exists()


def test_capabilities_admit_the_request(subject: Subject) -> None:
    assert subject.backend.explain(subject.request).verdict == "accepted"


def test_what_is_explained_as_refused_is_refused(subject: Subject, tmp_path: Path) -> None:
    request = subject.request.replace(prompt="x" * 2001, fps=12)
    refused = subject.backend.explain(request).verdict != "accepted"
    try:
        subject.backend.generate(request, GenerationContext(tmp_path / "a.mp4"))
    except HunyuanLocalError:
        assert refused
    else:
        assert not refused


def test_either_a_model_runs_here_or_each_video_is_a_task_that_is_paid_for(subject: Subject) -> None:
    assert (subject.backend.config is None) == subject.backend.is_paid


def test_who_keeps_no_state_refuses_a_folder_for_it(subject: Subject, make: Callable, tmp_path: Path) -> None:
    if not subject.backend.keeps_state:
        with pytest.raises(ConfigError, match="checkpoint_dir"):
            make(checkpoint_dir=tmp_path / "states")


def test_every_option_that_is_named_is_taken(subject: Subject) -> None:
    get_backend(subject.backend.name, **dict.fromkeys(option_names(subject.backend.name)))


def test_an_option_of_another_backend_is_refused(subject: Subject) -> None:
    foreign = {"local": {"api_key": "k"}}.get(subject.backend.name, {"model": "tiny"})
    with pytest.raises(ConfigError, match="not an option of the backend"):
        get_backend(subject.backend.name, **foreign)


def _shape(document: dict, inside: tuple[str, ...] = ("request", "timings", "video", "provenance")) -> set[str]:
    names = set(document)
    for part in inside:
        names |= {f"{part}.{name}" for name in document[part]}
    return names
