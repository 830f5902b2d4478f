"""Training of the built-in checkpoint: its world, its captions, and a few training steps."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from tiny import captions, optimisation, training, world  # noqa: E402

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


def test_a_few_steps_of_every_stage_make_a_loadable_checkpoint(
    loads_model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Six clips contain every direction, which each set of clips needs.
    buckets = tuple(replace(bucket, clips=6, num_frames=5) for bucket in training.QUICK.buckets)
    plan = replace(training.QUICK, image_steps=1, clip_steps=1, buckets=buckets)
    training.train(tmp_path / "work", tmp_path / "tiny", seed=0, threads=1, plan=plan)
    config = load_model_config("tiny").model_copy(update={"model_id": str(tmp_path / "tiny")})
    shipped, made = (load_model(each, load_profile("cpu")) for each in (load_model_config("tiny"), config))
    shipped.prompts.load()
    made.prompts.load()
    for name in ("vae", "transformer", "text_encoder", "text_encoder_2"):
        expected = {key: value.shape for key, value in getattr(shipped.pipe, name).state_dict().items()}
        assert {key: value.shape for key, value in getattr(made.pipe, name).state_dict().items()} == expected
    assert "latent_preview:" in capsys.readouterr().out


def test_the_latent_preview_is_printed_as_a_model_config_wants_it(
    loads_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    training.fit_preview(load_model_config("tiny").folder, seed=0, threads=1, plan=training.QUICK)
    quality, config = capsys.readouterr().out.split("\n", 1)
    assert "dB on held-out clips" in quality
    assert len(LatentPreview.model_validate(yaml.safe_load(config)["latent_preview"]).factors) == 16


class _Stop(Exception):
    pass


def _train_a_line(work_dir: Path, stop_after: int | None) -> torch.Tensor:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)

    def loss(step: int) -> torch.Tensor:
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 4), dtype=np.float32))
        return (model(x) - x.flip(1)).square().mean()

    def after(step: int) -> None:
        if step == stop_after:
            raise _Stop

    optimiser = optimisation.Optimiser([model.weight], [model.bias], muon_lr=0.02, adamw_lr=0.01)
    optimisation.run_stage("line", 60, work_dir, {"model": model}, optimiser, loss, after_step=after, save_every=10)
    return model.weight.detach()


def test_training_resumes_exactly(tmp_path: Path) -> None:
    undisturbed = _train_a_line(tmp_path / "a", None)
    with pytest.raises(_Stop):
        _train_a_line(tmp_path / "b", 34)
    assert torch.equal(_train_a_line(tmp_path / "b", None), undisturbed)


def test_training_lowers_and_logs_the_loss(tmp_path: Path) -> None:
    import json

    _train_a_line(tmp_path, None)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
