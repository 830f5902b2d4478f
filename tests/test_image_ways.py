"""Every way to run text to video, for both image-to-video architectures: the frames are those of a plain run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import torch
from PIL import Image

from hunyuan_local.config import ModelConfig, RuntimeProfile, load_cache, load_profile
from hunyuan_local.config.tiling import Tiling
from hunyuan_local.errors import GenerationCancelledError
from hunyuan_local.images import InputImage, open_image
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.families.hunyuan_video import HunyuanVideo
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.resolved import ResolvedRequest

RATIOS = (1.0, 1.01, 0.99, 1.0)
# Changes of the CPU's profile, and the least PSNR of the frames in dB; None for equal to 1 of 255 levels.
WAYS: dict[str, tuple[dict[str, Any], float | None]] = {
    "model offload": ({"offload": "model"}, None),
    "group offload": ({"offload": "group"}, None),
    "sequential offload": ({"offload": "sequential"}, None),
    "float8 weights": ({"quantization": "fp8"}, 25.0),
    "int8 weights": ({"quantization": "int8"}, 25.0),
    "first-block cache": ({"cache": load_cache("first-block-conservative")}, 25.0),
    "MagCache": ({"cache": load_cache("magcache-conservative").model_copy(update={"mag_ratios": RATIOS})}, 25.0),
    "TaylorSeer": ({"cache": load_cache("taylorseer-conservative")}, 20.0),
}
SIZE = (80, 80)


@pytest.fixture(scope="module")
def image() -> InputImage:
    return open_image(Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)))


@pytest.fixture(scope="module", params=list(image_models.CHANNELS))
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loads_model: None) -> ModelConfig:
    return image_models.make_checkpoint(tmp_path_factory.mktemp("ways") / request.param, request.param)


@pytest.fixture(scope="module")
def plain(config: ModelConfig, image: InputImage) -> np.ndarray:
    return frames_of(load_model(config, profile()), image)


@pytest.fixture(scope="module")
def closing() -> Iterator[Callable[[LoadedModel], LoadedModel]]:
    """Closes the models given to it at the end."""
    opened: list[LoadedModel] = []

    def keep(model: LoadedModel) -> LoadedModel:
        opened.append(model)
        return model

    yield keep
    for model in opened:
        model.placement.close()


def profile(**changes: Any) -> RuntimeProfile:
    cpu = load_profile("cpu")
    names = ("transformer", "vae", "text_encoder", "text_encoder_2")
    dtypes = cpu.dtypes.model_copy(update=dict.fromkeys(names, "float32"))
    return RuntimeProfile.model_validate(
        cpu.model_dump() | {"dtypes": dtypes.model_dump(), "prompt_cache": False} | changes
    )


def wish(image: InputImage) -> ResolvedRequest:
    return ResolvedRequest(
        prompt="a red circle moving right", image=image, width=SIZE[0], height=SIZE[1], num_frames=5,
        num_inference_steps=4, seed=3, guidance_scale=6.0, flow_shift=7.0, fps=12,
    )  # fmt: skip


def frames_of(model: LoadedModel, image: InputImage, cancel: Callable[[], bool] = lambda: False) -> np.ndarray:
    made = denoise(model, wish(image), SIZE, lambda progress: None, lambda note: None, cancel)
    return np.concatenate(list(decode(model, made.latents)))


@pytest.mark.parametrize("way", WAYS)
def test_the_frames_are_those_of_a_plain_run(
    way: str, config: ModelConfig, image: InputImage, plain: np.ndarray, closing: Callable[[LoadedModel], LoadedModel]
) -> None:
    changes, least_psnr_db = WAYS[way]
    found = frames_of(closing(load_model(config, profile(**changes))), image).astype(int)
    if least_psnr_db is None:
        assert np.abs(found - plain).max() <= 1
    else:
        error = np.square(found - plain.astype(int)).mean()
        assert 10 * np.log10(255**2 / max(error, 1e-9)) >= least_psnr_db


def test_temporal_tiles_lose_no_other_frames(config: ModelConfig) -> None:
    model = load_model(config, profile())
    latents = torch.randn(1, 16, 9, 4, 4, generator=torch.Generator().manual_seed(0))
    tiling = Tiling(height=None, width=None, frames=8)
    found, whole = (
        np.concatenate(list(decode(each, latents, tiling))) for each in (model, replace(model, family=HunyuanVideo()))
    )
    assert np.array_equal(found, whole[model.family.extra_frames :])


def test_a_second_video_does_not_depend_on_the_first(config: ModelConfig, image: InputImage, plain: np.ndarray) -> None:
    model = load_model(config, profile())
    other = open_image(Image.new("RGB", SIZE, "red"))
    frames_of(model, other)
    assert np.array_equal(frames_of(model, image), plain)


def test_a_cancelled_run_leaves_the_model_clean(config: ModelConfig, image: InputImage, plain: np.ndarray) -> None:
    model = load_model(config, profile(cache=load_cache("first-block-conservative")))
    with pytest.raises(GenerationCancelledError):
        frames_of(model, image, iter([False, True]).__next__)
    assert np.isfinite(frames_of(model, image)).all()


def test_an_encoded_prompt_belongs_to_its_image(config: ModelConfig, image: InputImage, tmp_path: Path) -> None:
    model = load_model(config, profile())
    requests = [wish(image), wish(open_image(Image.new("RGB", SIZE, "red")))]
    model.prompts.encode_ahead(tmp_path, requests, lambda progress: None, lambda note: None, lambda: False)
    assert len(list(tmp_path.glob("prompt-*.safetensors"))) == 2
    first, second = (model.prompts.encode(request, print)["prompt_embeds"] for request in requests)
    assert not torch.equal(first, second)
