"""A video from an image through the local backend: what is recorded, replayed and refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import image_models
import numpy as np
import pytest
from PIL import Image
from short_memory import short_of

from hunyuan_local import GenerationContext, GenerationRequest, GenerationResult
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.multi_gpu.messages import image_text, with_image
from hunyuan_local.capabilities import limits_of
from hunyuan_local.cli.commands.replay import _with_image
from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.errors import ConfigError, InvalidRequestError, RequestLossError
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import Progress

NOISE = np.random.default_rng(0).integers(0, 256, (144, 90, 4), dtype=np.uint8)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "cat.png"
    Image.fromarray(NOISE).save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, image: Path, loads_model: None) -> GenerationResult:
    """A video of the size that suits the image, made once."""
    folder = tmp_path_factory.mktemp("made")
    backend = LocalBackend(image_models.make_checkpoint(folder / "model", "token_replace"), load_profile("cpu"))
    request = GenerationRequest(prompt="a red circle", image=image, num_frames=5, num_inference_steps=2, seed=1, fps=12)
    return backend.generate(request, GenerationContext(folder / "cat.mp4"))


@dataclass(frozen=True)
class Watched:
    """A video of three steps: its frames, and the preview after each step that has one."""

    backend: LocalBackend
    request: GenerationRequest
    frames: str
    previews: list[np.ndarray]


@pytest.fixture(scope="module", params=list(image_models.CHANNELS))
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, image: Path, loads_model: None
) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    config = image_models.make_checkpoint(folder / "model", request.param)
    config = config.model_copy(update={"latent_preview": load_model_config("tiny").latent_preview})
    backend = LocalBackend(config, load_profile("cpu"))
    asked = GenerationRequest(prompt="a red circle", image=image, num_frames=5, num_inference_steps=3, seed=1, fps=12)
    previews: list[np.ndarray] = []

    def watch(progress: Progress) -> None:
        if progress.preview is not None:
            with Image.open(progress.preview) as picture:
                previews.append(np.asarray(picture))

    made = backend.generate(asked, GenerationContext(folder / "a.mp4", on_progress=watch, preview_every=1))
    return Watched(backend, asked, made.provenance["frames_sha256"], previews)


def test_previews_show_the_frames_of_the_video(watched: Watched) -> None:
    # Of latents of 10 x 18, two frames side by side: the image, and what the other four frames show.
    assert {picture.shape for picture in watched.previews} == {(18 * 8, 2 * 10 * 8, 3)}


def test_a_video_that_runs_out_of_memory_once_has_the_same_frames(watched: Watched, tmp_path: Path) -> None:
    backend = LocalBackend(watched.backend.config, load_profile("cpu"))
    with short_of(denoise={2}):
        made = backend.generate(watched.request, GenerationContext(tmp_path / "a.mp4"))
    assert "in the denoise stage" in made.provenance["recoveries"][0]
    assert made.provenance["frames_sha256"] == watched.frames


def test_the_size_is_the_one_nearest_to_the_images_shape(made: GenerationResult) -> None:
    assert made.video is not None and (made.video.width, made.video.height) == (80, 144)


def test_transparency_is_noted(made: GenerationResult) -> None:
    assert any("transparent parts were put on white" in note for note in made.notes)


def test_the_provenance_names_digest_and_size(made: GenerationResult, image: Path) -> None:
    named = made.provenance["request"]["image"]
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert (named["sha256"], named["width"], named["height"]) == (digest, 90, 144)


def test_the_result_is_json(made: GenerationResult) -> None:
    assert json.loads(made.model_dump_json())["request"]["image"]["format"] == "PNG"


def test_a_replay_needs_the_image(made: GenerationResult) -> None:
    with pytest.raises(ConfigError, match="give it with --image"):
        _with_image(made.path, read_provenance(made.path).request, None)


def test_a_replay_refuses_another_image(made: GenerationResult, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    with pytest.raises(ConfigError, match="give the same file"):
        _with_image(made.path, read_provenance(made.path).request, str(tmp_path / "other.png"))


def test_a_replay_takes_the_image_again(made: GenerationResult, image: Path) -> None:
    request = _with_image(made.path, read_provenance(made.path).request, str(image))
    assert request.image is not None and request.image.is_here


def test_the_image_reaches_other_processes(image: Path) -> None:
    request = GenerationRequest(prompt="a cat", image=image)
    received = GenerationRequest(**json.loads(request.model_dump_json()))
    assert with_image(received, image_text(request)).image.content() == image.read_bytes()


def test_a_text_model_refuses_an_image_and_names_those_that_fit(image: Path) -> None:
    with pytest.raises(RequestLossError, match=r"image=.*tiny makes videos from text alone.*hunyuan-video-i2v"):
        LocalBackend("tiny", "cpu").generate(GenerationRequest(prompt="a cat", image=image))


def test_an_image_model_refuses_text_alone_and_names_those_that_fit() -> None:
    backend = LocalBackend(load_model_config("hunyuan-video-i2v"), "cpu")
    with pytest.raises(RequestLossError, match=r"image=None: .*give one.*tiny"):
        backend.resolve_if_possible(GenerationRequest(prompt="a cat"))


def test_a_described_image_is_not_enough(image: Path) -> None:
    described = GenerationRequest.model_validate_json(GenerationRequest(prompt="a cat", image=image).model_dump_json())
    backend = LocalBackend(load_model_config("hunyuan-video-i2v"), "cpu")
    with pytest.raises(InvalidRequestError, match="only the description"):
        backend.resolve_if_possible(described)


def test_a_given_size_is_kept(image: Path) -> None:
    request = GenerationRequest(prompt="a cat", image=image, width=960, height=544)
    filled = limits_of(load_model_config("hunyuan-video-i2v")).fill(request)
    assert (filled.width, filled.height) == (960, 544)
