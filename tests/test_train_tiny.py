"""Training of the built-in checkpoint: its world, its captions, and a few training steps."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from PIL import Image
from transformers import CLIPTextModel, LlamaModel, LlavaForConditionalGeneration, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from tiny import autoencoder, captions, colours, denoiser, optimisation, picture, text, training, world  # noqa: E402
from tiny.clips import Batch, Bucket  # noqa: E402

from hunyuan_local.config import LatentPreview, load_model_config, load_profile  # noqa: E402
from hunyuan_local.pipeline.loading.loader import load_model  # noqa: E402


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Training sets the number of threads, which would change the last bits of later videos."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_there_are_216_combinations_and_36_are_held_out() -> None:
    held_out = [c for c in world.combinations() if world.is_held_out(c)]
    assert (len(world.combinations()), len(held_out)) == (216, 36)


@pytest.mark.parametrize("first", ["colour", "shape", "direction"])
@pytest.mark.parametrize("second", ["shape", "direction", "background"])
def test_every_pair_of_words_occurs_in_training(first: str, second: str) -> None:
    def pairs(combinations: list[world.Combination]) -> set[tuple[str, str]]:
        return {(getattr(c, first), getattr(c, second)) for c in combinations}

    assert pairs(world.training_combinations()) == pairs(world.combinations())


@pytest.mark.parametrize("size", [world.LANDSCAPE, world.PORTRAIT])
@pytest.mark.parametrize("num_frames", [5, 17, 33, 49])
def test_the_shape_stays_inside_the_canvas(size: tuple[int, int], num_frames: int) -> None:
    rng = np.random.default_rng(0)
    for combination in world.combinations()[::11]:
        frames = world.render(world.sample_scene(rng, combination, size, num_frames))
        background = np.asarray(world.BACKGROUNDS[combination.background], np.float32) / 255
        rim = np.concatenate([frames[:, 0], frames[:, -1]], axis=1), np.concatenate([frames[:, :, 0], frames[:, :, -1]])
        # The mitred tip of a triangle may leave a trace on the rim.
        assert max(np.abs(edge - background).max() for edge in rim) < 0.15


@pytest.mark.parametrize("direction", list(world.DIRECTIONS))
def test_the_shape_moves_as_its_caption_says(direction: str) -> None:
    combination = world.Combination("white", "square", direction, "black")
    scene = world.sample_scene(np.random.default_rng(0), combination, world.LANDSCAPE, 17)
    mass = world.render(scene)[..., 0]
    y, x = np.mgrid[: mass.shape[1], : mass.shape[2]]
    centres = [(float((f * x).sum() / f.sum()), float((f * y).sum() / f.sum())) for f in (mass[0], mass[-1])]
    moved = np.subtract(centres[1], centres[0])
    assert np.allclose(moved / np.abs(moved).max(), world.DIRECTIONS[direction], atol=0.05)


def test_captions_hold_the_four_words_in_any_wording() -> None:
    rng = np.random.default_rng(0)
    for combination in world.combinations():
        text = captions.varied(combination, rng).lower().replace("gray", "grey").replace("bottom", "down")
        text = text.replace("top", "up")
        for word in (combination.colour, combination.shape, combination.direction, combination.background):
            assert word in text, text


def test_captions_vary() -> None:
    rng = np.random.default_rng(0)
    combination = world.combinations()[0]
    assert Counter(captions.varied(combination, rng) for _ in range(200)).most_common(1)[0][1] < 60


@pytest.mark.parametrize("size", [world.LANDSCAPE, world.PORTRAIT])
def test_a_path_anywhere_stays_inside_the_canvas_and_does_not_follow_from_its_direction(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    combination = world.Combination("red", "circle", "right", "black")
    scenes = [world.sample_scene(rng, combination, size, 17, anywhere=True) for _ in range(200)]
    starts = np.array([scene.centre(0)[0] for scene in scenes])
    room = min(min(s.centre(f)[0] - s.radius, size[0] - s.centre(f)[0] - s.radius) for s in scenes for f in (0, 16))
    assert room > 0
    assert starts.max() - starts.min() > 0.6 * (size[0] - 2 * world.RADIUS_PX[1] - 16 * world.SPEED_PX[1])


@pytest.mark.parametrize("left_out", sorted(captions.PARTS))
def test_a_partial_caption_says_nothing_of_what_it_leaves_out(left_out: str) -> None:
    words = {
        "colour": set(world.COLOURS),
        "shape": set(world.SHAPES),
        "direction": set(" ".join(sum(captions._DIRECTIONS.values(), ())).split()) - {"the", "to", "side", "screen"},
        "background": {"black", "grey", "gray", "navy", "background"},
    }
    rng = np.random.default_rng(0)
    for combination in world.combinations():
        text = captions.varied(combination, rng, captions.PARTS - {left_out}).lower().replace("navy blue", "navy")
        assert not words[left_out] & set(text.replace(",", " ").replace(".", " ").replace("!", " ").split()), text
        assert text.strip(" ,") == text
        for part in captions.PARTS - {left_out, "direction", "background"}:
            assert getattr(combination, part) in text, text


def test_a_contradiction_differs_in_one_part_and_never_in_the_direction() -> None:
    rng = np.random.default_rng(0)
    changed = Counter()
    for combination in world.combinations():
        other = captions.contradicting(combination, rng)
        parts = [p for p in sorted(captions.PARTS) if getattr(other, p) != getattr(combination, p)]
        changed.update(parts)
        assert len(parts) == 1
    assert set(changed) == {"colour", "shape", "background"}


@pytest.fixture(scope="module")
def with_colours(loads_model: None) -> tuple[AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo]:
    """An autoencoder without and with the colours in its latents, of few channels and random weights."""
    torch.manual_seed(0)
    before = autoencoder.build()
    # Half of the directions hardly vary, as after training.
    before.quant_conv.weight.data[8:16] *= 1e-4
    autoencoder.normalise_latents(before, np.random.default_rng(0), 4, 5)
    before.quant_conv.weight.data[8:16] *= 1e-4
    before.quant_conv.bias.data[8:16] *= 1e-4
    after = copy.deepcopy(before)
    colours.put_into_latents(after, np.random.default_rng(0), 12)
    return before, after


def test_a_linear_map_of_the_latents_gives_the_colours_once_they_are_put_there(
    with_colours: tuple[AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo],
) -> None:
    def left_over(vae: AutoencoderKLHunyuanVideo) -> float:
        rows, wanted = [], []
        for pixels in colours._clips(np.random.default_rng(1), 6):
            latents = autoencoder.encode(vae, pixels) * vae.config.scaling_factor
            noisy = latents + 0.1 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
            rows.append(torch.nn.functional.pad(noisy[0].flatten(1).T, (0, 1), value=1.0))
            wanted.append(colours.to_latent_grid(pixels)[0].flatten(1).T)
        x, y = torch.cat(rows), torch.cat(wanted)
        return float((x @ torch.linalg.lstsq(x, y).solution - y).square().mean() / y.var(dim=0).mean())

    with torch.no_grad():
        before, after = (left_over(vae) for vae in with_colours)
    assert after < 0.1 < before


def test_colours_in_the_latents_change_no_decoded_clip(
    with_colours: tuple[AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo],
) -> None:
    pixels = next(colours._clips(np.random.default_rng(1), 1))
    with torch.no_grad():
        before, after = (autoencoder.decode(vae, autoencoder.encode(vae, pixels)) for vae in with_colours)
    torch.testing.assert_close(after, before, atol=1e-2, rtol=0)


def test_float32_products_change_muon_by_their_rounding_alone() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(96, 64), torch.randn(3, 96, 64)
    ends = []
    for kind in (torch.optim.Muon, optimisation.Float32Muon):
        parameter = torch.nn.Parameter(start.clone())
        optimiser = kind([parameter], lr=0.1, weight_decay=0.0, momentum=0.95)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimiser.step()
        ends.append(parameter.detach())
    assert (ends[0] - ends[1]).norm() < 0.03 * (ends[0] - start).norm()


@pytest.fixture(scope="module")
def picture_stack() -> picture.PictureStack:
    return picture.build(text.build(0), 0)


def test_a_picture_and_prompts_are_encoded_as_by_the_pipeline(picture_stack: picture.PictureStack) -> None:
    pipe = HunyuanVideoImageToVideoPipeline(
        text_encoder=picture_stack.text_encoder,
        tokenizer=picture_stack.tokenizer,
        transformer=denoiser.build(0, "token_replace"),
        vae=autoencoder.build(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder_2=picture_stack.text_encoder_2,
        tokenizer_2=picture_stack.tokenizer_2,
        image_processor=picture_stack.image_processor,
    )
    pictures = np.random.default_rng(0).integers(256, size=(2, 80, 144, 3), dtype=np.uint8)
    prompts = ["a red circle moving left on a black background", "it goes up"]
    with torch.no_grad():
        embeds, pooled, mask = picture_stack.encode(prompts, pictures)
        for row, prompt in enumerate(prompts):
            wanted, wanted_pooled, wanted_mask = pipe.encode_prompt(
                Image.fromarray(pictures[row]),
                prompt,
                prompt_template=picture_stack.prompt_template(),
                image_embed_interleave=picture.INTERLEAVE,
            )
            valid, wanted_valid = mask[row].bool(), wanted_mask[0].bool()
            torch.testing.assert_close(embeds[row][valid], wanted[0][wanted_valid], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(pooled[row], wanted_pooled[0], atol=1e-4, rtol=1e-4)


def test_the_given_first_latent_frame_has_no_part_in_the_loss(picture_stack: picture.PictureStack) -> None:
    class Clips:
        bucket = Bucket((32, 32), 5, 2, 2, 1.0)

        def __init__(self, first_of_clip: float):
            self.batch = Batch(
                latents=torch.cat([torch.full((2, 16, 1, 4, 4), first_of_clip), torch.ones(2, 16, 1, 4, 4)], dim=2),
                first=torch.zeros(2, 16, 1, 4, 4),
                pictures=np.zeros((2, 32, 32, 3), np.uint8),
                combinations=world.combinations()[:2],
                heat=torch.zeros(4, 1, 2, 4, 4),
            )

        def draw(self, rng: np.random.Generator) -> Batch:
            return self.batch

    transformer = denoiser.build(0, "token_replace")
    losses = [
        denoiser._loss(
            transformer, picture_stack, denoiser.word_picture, [Clips(value)], np.random.default_rng(0)
        ).item()
        for value in (0.0, 9.0)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("encoder", ["text_encoder", "text_encoder_2"])
def test_a_start_gives_its_encoders_with_every_token_that_it_knows(loads_model: None, encoder: str) -> None:
    folder = load_model_config("tiny").folder
    stack = text.build(0)
    text.take_weights(stack, folder)
    kind = {"text_encoder": LlamaModel, "text_encoder_2": CLIPTextModel}[encoder]
    before = kind.from_pretrained(folder / encoder, dtype=torch.float32)
    mine = {"text_encoder": stack.tokenizer, "text_encoder_2": stack.tokenizer_2}[encoder].get_vocab()
    theirs = (
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer/tokenizer.json")).get_vocab()
        if encoder == "text_encoder"
        else json.loads((folder / "tokenizer_2/vocab.json").read_text())
    )
    rows = [
        each.weight.detach() for each in (stack.trained[encoder].get_input_embeddings(), before.get_input_embeddings())
    ]
    shared = sorted(mine.keys() & theirs.keys())
    assert len(shared) > 600
    assert all(torch.equal(rows[0][mine[token]], rows[1][theirs[token]]) for token in shared)


def test_a_few_steps_of_every_stage_make_loadable_checkpoints(
    loads_model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = load_model_config("tiny").folder
    training.train(tmp_path / "work", tmp_path, seed=0, threads=1, plan=training.QUICK, start=start)
    config = load_model_config("tiny").model_copy(update={"model_id": str(tmp_path / "tiny")})
    shipped, made = (load_model(each, load_profile("cpu")) for each in (load_model_config("tiny"), config))
    shipped.prompts.load()
    made.prompts.load()
    for name in ("vae", "transformer", "text_encoder", "text_encoder_2"):
        # The number of tokens, the first side of an embedding, follows from the captions.
        expected = {key: value.shape[1:] for key, value in getattr(shipped.pipe, name).state_dict().items()}
        assert {key: value.shape[1:] for key, value in getattr(made.pipe, name).state_dict().items()} == expected
    assert "latent_preview:" in capsys.readouterr().out
    i2v = tmp_path / "tiny-i2v"
    for shared in ("vae", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"):
        for file in (tmp_path / "tiny" / shared).iterdir():
            assert (i2v / shared / file.name).read_bytes() == file.read_bytes(), file
    assert sum(file.stat().st_size for file in tmp_path.glob("tiny*/**/*") if file.is_file()) < 30e6
    assert "_name_or_path" not in "".join(file.read_text() for file in tmp_path.glob("tiny*/*/config.json"))
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(i2v / "transformer")
    assert transformer.config.image_condition_type == "token_replace"
    LlavaForConditionalGeneration.from_pretrained(i2v / "text_encoder")


def test_the_latent_preview_is_printed_as_a_model_config_wants_it(
    loads_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    training.fit_preview(load_model_config("tiny").folder, seed=0, threads=1, plan=training.QUICK)
    quality, config = capsys.readouterr().out.split("\n", 1)
    assert "dB on held-out clips" in quality
    assert len(LatentPreview.model_validate(yaml.safe_load(config)["latent_preview"]).factors) == 16


class _Stop(Exception):
    pass


def _train_a_line(
    work_dir: Path, stop_after: int | None, *, seed: int = 0, save_seconds: float = 0.0, terminate: bool = False
) -> torch.Tensor:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)

    def loss(step: int) -> torch.Tensor:
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 4), dtype=np.float32))
        return (model(x) - x.flip(1)).square().mean()

    def after(step: int) -> None:
        if step == stop_after:
            if not terminate:
                raise _Stop
            os.kill(os.getpid(), signal.SIGTERM)

    optimiser = optimisation.Optimiser([model.weight], [model.bias], muon_lr=0.02, adamw_lr=0.01)
    optimisation.run_stage(
        "line", 60, work_dir, {"model": model}, optimiser, loss,
        plan={"seed": seed}, after_step=after, save_seconds=save_seconds,
    )  # fmt: skip
    return model.weight.detach()


def test_training_resumes_exactly(tmp_path: Path) -> None:
    undisturbed = _train_a_line(tmp_path / "a", None)
    with pytest.raises(_Stop):
        _train_a_line(tmp_path / "b", 34)
    assert torch.equal(_train_a_line(tmp_path / "b", None), undisturbed)


def test_sigterm_saves_the_last_step_from_which_training_resumes_exactly(tmp_path: Path) -> None:
    undisturbed = _train_a_line(tmp_path / "a", None)
    with pytest.raises(SystemExit, match="saved at step 35 of 60"):
        _train_a_line(tmp_path / "b", 34, save_seconds=1e9, terminate=True)
    assert torch.equal(_train_a_line(tmp_path / "b", None), undisturbed)


def test_a_state_of_another_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(_Stop):
        _train_a_line(tmp_path, 34)
    with pytest.raises(
        ValueError, match=r"line\.pt has the plan .*'seed': 0.*, not .*'seed': 1.*another work directory"
    ):
        _train_a_line(tmp_path, None, seed=1)


def test_training_lowers_and_logs_the_loss(tmp_path: Path) -> None:
    _train_a_line(tmp_path, None)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
