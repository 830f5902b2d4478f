"""Both image-to-video architectures against diffusers' own pipeline, at toy size and with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import image_models
import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoImageToVideoPipeline, HunyuanVideoTransformer3DModel
from PIL import Image

from hunyuan_local.config import RuntimeProfile, load_profile
from hunyuan_local.pipeline.checkpoint import Checkpoint
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.planner.checkpoint import read_architecture
from hunyuan_local.planner.setup import Shape
from hunyuan_local.resolved import ResolvedRequest

SIZES = ((144, 80), (80, 144))
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))


class Both(NamedTuple):
    """Our model and diffusers' pipeline with the same weights."""

    ours: LoadedModel
    stock: HunyuanVideoImageToVideoPipeline


def profile(dtype: str) -> RuntimeProfile:
    """The CPU profile in one precision."""
    cpu = load_profile("cpu")
    names = ("transformer", "vae", "text_encoder", "text_encoder_2")
    dtypes = cpu.dtypes.model_copy(update=dict.fromkeys(names, dtype))
    return cpu.model_copy(update={"dtypes": dtypes, "prompt_cache": False})


@pytest.fixture(scope="module", params=list(image_models.CHANNELS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, loads_model: None) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("models") / request.param
    config = image_models.make_checkpoint(folder, request.param)
    ours = load_model(config, profile("float32"))
    ours.prompts.load()
    parts = {name: getattr(ours.pipe, name) for name in ours.pipe.components if name != "transformer"}
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer")
    yield Both(ours, HunyuanVideoImageToVideoPipeline(transformer=transformer, **parts))


def wish(size: tuple[int, int], **changes: object) -> ResolvedRequest:
    """A short request with an image of another shape, stretched as diffusers does."""
    fields = {
        "prompt": "a red circle moving right", "image": IMAGE, "image_fit": "stretch", "width": size[0],
        "height": size[1], "num_frames": 5, "num_inference_steps": 2, "seed": 3, "guidance_scale": 6.0,
        "flow_shift": 7.0, "fps": 12,
    }  # fmt: skip
    return ResolvedRequest(**fields | changes)


def latents_of(model: LoadedModel, request: ResolvedRequest, checkpoint: Checkpoint | None = None) -> torch.Tensor:
    size = (request.width, request.height)
    return denoise(model, request, size, lambda progress: None, lambda note: None, lambda: False, checkpoint).latents


def frames_of(model: LoadedModel, request: ResolvedRequest) -> np.ndarray:
    return np.concatenate(list(decode(model, latents_of(model, request))))


def stock_frames(both: Both, request: ResolvedRequest) -> np.ndarray:
    """The frames of diffusers' pipeline; the 33-channel model cuts off four, so four more are asked for."""
    pipe, template = both.stock, both.ours.config.prompt_template
    pipe.scheduler.set_shift(request.flow_shift)
    start = len(pipe.tokenizer(template.template.split("<image>")[0]).input_ids)
    length = (image_models.IMAGE_SIZE // image_models.PATCH) ** 2
    place = {"image_emb_start": start, "image_emb_end": start + length, "image_emb_len": length}
    made = pipe(
        image=IMAGE,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        true_cfg_scale=request.true_cfg_scale,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames + both.ours.family.extra_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        prompt_template=template.model_dump() | place,
        output_type="np",
    ).frames[0]
    return (made * 255).round().astype(np.uint8)


@pytest.mark.parametrize("negative", [None, "rain"], ids=["one prediction", "true guidance"])
@pytest.mark.parametrize("size", SIZES, ids=["landscape", "portrait"])
def test_frames_equal_the_librarys(both: Both, size: tuple[int, int], negative: str | None) -> None:
    request = wish(size, negative_prompt=negative, true_cfg_scale=2.0 if negative else 1.0)
    ours, theirs = frames_of(both.ours, request), stock_frames(both, request)
    assert ours.shape == theirs.shape == (5, size[1], size[0], 3)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_the_image_changes_the_video(both: Both) -> None:
    request = wish(SIZES[0])
    other = Image.fromarray(np.asarray(IMAGE)[::-1].copy())
    assert not torch.equal(latents_of(both.ours, request), latents_of(both.ours, request.replace(image=other)))


def test_the_images_tokens_are_attended_and_the_padding_is_not(both: Both) -> None:
    model, request = both.ours, wish(SIZES[0])
    embeds = model.encode(request, print)
    seen = int(embeds["prompt_attention_mask"].sum())
    image_tokens = (image_models.IMAGE_SIZE // image_models.PATCH) ** 2 // model.family.image_stride
    shape = model.family.latents_shape(model.pipe, SIZES[0], request.num_frames)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def velocity(changed: slice) -> torch.Tensor:
        others = embeds["prompt_embeds"].clone()
        others[:, changed] += 1
        image = noise[:, :, :1].clone()
        conditions = model.family.conditions(model.pipe, embeds | {"prompt_embeds": others}, request, image)
        return model.family.predict(model.pipe.transformer, noise, torch.tensor([500.0]), conditions)

    assert image_tokens < seen < embeds["prompt_embeds"].shape[1]
    plain = velocity(slice(0, 0))
    assert torch.equal(velocity(slice(seen, None)), plain)
    for place in (0, image_tokens - 1, seen - 1):
        assert not torch.allclose(velocity(slice(place, place + 1)), plain, atol=1e-4)


def test_the_plan_counts_the_tokens_and_latents_of_the_pipeline(both: Both) -> None:
    model, (width, height) = both.ours, SIZES[0]
    architecture = read_architecture(model.config)
    embeds = model.encode(wish(SIZES[0]), print)["prompt_embeds"]
    latents = Shape.of(architecture, width, height, 5, model.config.prompt_template.crop_start).latents
    assert architecture.text_tokens == embeds.shape[1]
    assert latents == model.family.latents_shape(model.pipe, SIZES[0], 5)[2:]


def test_a_resumed_run_is_bit_equal(both: Both, tmp_path: Path) -> None:
    request = wish(SIZES[0], num_inference_steps=3)
    model = load_model(both.ours.config, profile("bfloat16"))
    whole = latents_of(model, request)
    stopped = Checkpoint(tmp_path, "key", 1)
    stopped.facts = {"any": "thing"}
    calls = iter([False, True])
    from hunyuan_local.errors import GenerationCancelledError

    with pytest.raises(GenerationCancelledError):
        denoise(model, request, SIZES[0], lambda progress: None, lambda note: None, lambda: next(calls), stopped)
    again = Checkpoint(tmp_path, "key", 1)
    again.facts = {"any": "thing"}
    assert torch.equal(latents_of(model, request, again), whole)
