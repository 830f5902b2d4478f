"""Previews during generation: the linear map and its fit, clean latents, the image and when it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from tiny import preview as fitting
from tiny import world

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import LatentPreview, load_model_config
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline.preview import Previewer, predict_clean, preview_frames
from hunyuan_local.video.picture import write_picture

# The first three of four channels are red, green and blue.
PLAIN = LatentPreview(factors=((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)))
SIGMAS = torch.tensor([1.0, 0.9, 0.75, 0.5, 0.2, 0.0])


def random_latents(seed: int, length: int = 3) -> torch.Tensor:
    return torch.randn(1, 4, length, 5, 9, generator=torch.Generator().manual_seed(seed))


def path_of(clean: torch.Tensor) -> list[torch.Tensor]:
    """Latents after each of five steps that lead from noise to ``clean`` in a straight line."""
    noise = random_latents(99, clean.shape[2])
    return [(1 - sigma) * clean + sigma * noise for sigma in SIGMAS[1:]]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


# The fit


def test_the_fit_recovers_a_known_map() -> None:
    rng = np.random.default_rng(0)
    known = LatentPreview(factors=rng.normal(size=(16, 3)).round(4).tolist(), bias=rng.normal(size=3).round(4).tolist())
    latents = rng.normal(size=(500, 16)) @ rng.normal(size=(16, 16))
    assert fitting.fit(latents, latents @ np.array(known.factors) + known.bias, noise=0) == known


def test_noise_keeps_the_fit_from_leaning_on_what_hardly_varies() -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(500, 2)) * [1.0, 1e-3]
    colours = latents @ np.array([[0.5, 0.5, 0.5], [100.0, 100.0, 100.0]])
    without, with_noise = (np.abs(fitting.fit(latents, colours, noise).factors[1]).max() for noise in (0, 0.1))
    assert without == pytest.approx(100)
    assert with_noise < 1


def test_noise_leaves_the_mean_colour_as_it_is() -> None:
    rng = np.random.default_rng(0)
    latents, colours = rng.normal(size=(500, 4)), rng.uniform(0.2, 0.8, size=(500, 3))
    preview = fitting.fit(latents - latents.mean(axis=0), colours, noise=1.0)
    np.testing.assert_allclose(preview.bias, colours.mean(axis=0), atol=1e-4)


def test_the_first_latent_stands_for_one_frame_and_each_other_for_four() -> None:
    frames = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(1, 3, 9, 16, 8)
    assert fitting.to_latent_grid(frames)[0, 0, :, 1, 0].tolist() == [0, 2.5, 6.5]


def test_each_latent_stands_for_eight_by_eight_pixels() -> None:
    columns = torch.arange(16.0).expand(1, 3, 1, 8, 16)
    assert fitting.to_latent_grid(columns)[0, 0, 0].tolist() == [[3.5, 11.5]]


# The models' maps


@pytest.mark.parametrize("name", ["tiny", "hunyuan-video", "fast-hunyuan"])
def test_the_map_has_a_row_for_each_channel(name: str) -> None:
    assert len(load_model_config(name).latent_preview.factors) == 16


def test_the_two_models_of_one_autoencoder_have_one_map() -> None:
    maps = [load_model_config(name).latent_preview for name in ("hunyuan-video", "fast-hunyuan")]
    assert maps[0] == maps[1]


@pytest.fixture
def show(tiny: LocalBackend) -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """A circle of this colour moving right on black: as tiny's map shows it, and its true frames, both in 0..255."""

    def encode(colour: str) -> tuple[np.ndarray, np.ndarray]:
        scene = world.sample_scene(
            np.random.default_rng(3), world.Combination(colour, "circle", "right", "black"), world.LANDSCAPE, 17
        )
        clip = torch.from_numpy(world.render(scene)).permute(3, 0, 1, 2)[None] * 2 - 1
        vae = tiny.load().pipe.vae
        with torch.no_grad():
            latents = vae.encode(clip).latent_dist.mode() * vae.config.scaling_factor
        true = fitting.to_latent_grid(clip)[0].permute(1, 2, 3, 0).numpy()
        return preview_frames(latents, tiny.config.latent_preview, count=5).astype(float), (true + 1) * 127.5

    return encode


def middle_of(true: np.ndarray) -> tuple[int, int, int]:
    """Where the circle is brightest, in the middle latent frame."""
    row, column = np.unravel_index(true[2].sum(axis=-1).argmax(), true.shape[1:3])
    return 2, int(row), int(column)


@pytest.mark.parametrize("colour", ["red", "blue", "white"])
def test_tinys_map_is_close_to_a_clip(show: Callable, colour: str) -> None:
    shown, true = show(colour)
    assert -10 * np.log10(np.square((shown - true) / 255).mean()) > 20


@pytest.mark.parametrize("colour", ["red", "blue", "white"])
def test_tinys_map_shows_a_bright_circle_at_its_place(show: Callable, colour: str) -> None:
    shown, true = show(colour)
    brightness, background = shown.sum(axis=-1), shown[:, 0, 0].sum(axis=-1).mean()
    assert brightness[middle_of(true)] > background + 200


def test_tinys_map_shows_a_blue_circle_blue(show: Callable) -> None:
    shown, true = show("blue")
    red, green, blue = shown[middle_of(true)]
    assert blue > 60 + max(red, green)


def test_tinys_map_shows_a_red_circle_warm(show: Callable) -> None:
    shown, true = show("red")
    red, green, blue = shown[middle_of(true)]
    # Not red: tiny's autoencoder does not encode red against green linearly.
    assert red > green
    assert red > blue + 60


# From latents to colours


def test_the_map_is_a_product_and_a_bias() -> None:
    preview = LatentPreview(factors=((0.5, 0, 0), (0, 0.25, 0), (0, 0, 0), (0, 0, 0)), bias=(0, 0.5, -0.2))
    assert preview_frames(torch.ones(1, 4, 1, 1, 1), preview).tolist() == [[[[191, 223, 102]]]]


def test_colours_beyond_the_range_are_cut_off() -> None:
    latents = torch.tensor([-3.0, 3.0, 0.0, 0.0]).view(1, 4, 1, 1, 1)
    assert preview_frames(latents, PLAIN).tolist() == [[[[0, 255, 128]]]]


@pytest.mark.parametrize(
    ("length", "count", "chosen"), [(33, 4, [0, 11, 21, 32]), (9, 3, [0, 4, 8]), (2, 4, [0, 1]), (5, 1, [0])]
)
def test_frames_are_evenly_spaced(length: int, count: int, chosen: list[int]) -> None:
    numbers = torch.arange(length) / 127.5 - 1
    latents = numbers.view(1, 1, -1, 1, 1).expand(1, 4, length, 2, 3)
    assert preview_frames(latents, PLAIN, count)[:, 1, 2, 0].tolist() == chosen


def test_rows_and_columns_stay_in_their_order() -> None:
    latents = (torch.arange(6.0) / 127.5 - 1).view(1, 1, 1, 2, 3).expand(1, 4, 1, 2, 3)
    assert preview_frames(latents, PLAIN)[0, ..., 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_latent_frames_before_the_video_are_not_shown(tmp_path: Path) -> None:
    clean = random_latents(1)
    Previewer(PLAIN, tmp_path / "preview.png", 1, print, hidden=1).see(1, 1, clean, torch.tensor([1.0, 0.0]))
    write_picture(preview_frames(clean[:, :, 1:], PLAIN), tmp_path / "expected.png", scale=8)
    np.testing.assert_array_equal(pixels(tmp_path / "preview.png"), pixels(tmp_path / "expected.png"))


def test_a_map_of_other_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"latent_preview.factors: 4 rows.*16 channels.*remove latent_preview"):
        preview_frames(torch.zeros(1, 16, 1, 2, 2), PLAIN)


# The clean latents


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_the_clean_latents_are_exact_on_a_straight_path(step: int) -> None:
    clean = random_latents(1)
    before, after = path_of(clean)[step - 1 : step + 1]
    found = predict_clean(before, after, SIGMAS[step].item(), SIGMAS[step + 1].item())
    torch.testing.assert_close(found, clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sigma_after", [0.5, 0.6])
def test_a_step_that_does_not_lower_the_noise_is_refused(sigma_after: float) -> None:
    with pytest.raises(ValueError, match="sigma must decrease"):
        predict_clean(random_latents(1), random_latents(2), 0.5, sigma_after)


def test_they_are_what_the_pipelines_own_velocity_points_to(
    tiny: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, expected, found = tiny.load().pipe, [], []
    take_step = pipe.scheduler.step

    def record(velocity: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, **options: object) -> object:
        sigma = pipe.scheduler.sigmas[len(expected)]
        expected.append((sample, sigma, sample - sigma * velocity))
        return take_step(velocity, timestep, sample, **options)

    def watch(pipe: object, index: int, timestep: object, tensors: dict) -> dict:
        sample, sigma, _ = expected[index]
        found.append(predict_clean(sample, tensors["latents"], sigma.item(), pipe.scheduler.sigmas[index + 1].item()))
        return {}

    monkeypatch.setattr(pipe.scheduler, "step", record)
    denoise(tiny, steps=3, watch=watch)
    torch.testing.assert_close(torch.stack(found), torch.stack([clean for *_, clean in expected]), atol=1e-4, rtol=0)


def denoise(tiny: LocalBackend, steps: int, watch: Callable) -> torch.Tensor:
    """Latents of the real pipeline for an arbitrary prompt."""
    generator = torch.Generator().manual_seed(0)
    return (
        tiny.load()
        .pipe(
            prompt_embeds=torch.randn(1, 8, 96, generator=generator),
            pooled_prompt_embeds=torch.randn(1, 96, generator=generator),
            prompt_attention_mask=torch.ones(1, 8, dtype=torch.long),
            width=144,
            height=80,
            num_frames=9,
            num_inference_steps=steps,
            generator=generator,
            output_type="latent",
            callback_on_step_end=watch,
        )
        .frames
    )


# The image


def test_frames_stand_side_by_side(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    write_picture(frames, tmp_path / "picture.png")
    np.testing.assert_array_equal(pixels(tmp_path / "picture.png"), np.concatenate(frames, axis=1))


def test_frames_are_enlarged_without_running_into_each_other(tmp_path: Path) -> None:
    frames = np.array([10, 200], np.uint8).reshape(2, 1, 1, 1).repeat(4, 1).repeat(6, 2).repeat(3, 3)
    write_picture(frames, tmp_path / "picture.png", scale=8)
    np.testing.assert_array_equal(pixels(tmp_path / "picture.png"), np.concatenate(frames, 1).repeat(8, 0).repeat(8, 1))


def test_enlarging_blends_neighbouring_pixels_and_overshoots_neither(tmp_path: Path) -> None:
    frame = np.array([100, 200], np.uint8).reshape(1, 1, 2, 1).repeat(3, 3)
    write_picture(frame, tmp_path / "picture.png", scale=8)
    row = pixels(tmp_path / "picture.png")[0, :, 0].astype(int)
    assert (row.min(), row.max()) == (100, 200)
    assert 4 < len(set(row.tolist())) <= 10


def test_a_later_picture_takes_the_place_of_the_first(tmp_path: Path) -> None:
    for value in (1, 2):
        write_picture(np.full((1, 4, 4, 3), value, np.uint8), tmp_path / "picture.png")
    assert pixels(tmp_path / "picture.png").max() == 2


def test_a_picture_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        write_picture(np.zeros((1, 4, 4, 3), np.uint8), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    "frames", [np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_what_is_no_frames_is_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="frames must be uint8"):
        write_picture(frames, tmp_path / "picture.png")


def test_a_picture_is_not_made_smaller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scale must be 1 or more"):
        write_picture(np.zeros((1, 4, 4, 3), np.uint8), tmp_path / "picture.png", scale=0)


# When it is written


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def previewer(tmp_path: Path, notes: list[str]) -> Callable[[int], Previewer]:
    """A previewer for every ``every`` steps."""
    return lambda every: Previewer(PLAIN, tmp_path / "preview.png", every, notes.append)


def walk(previewer: Previewer, first: int = 0) -> list[int]:
    """The steps, out of five, that have an image, in a run that starts after step ``first``."""
    path = path_of(random_latents(1))
    return [step for step in range(first + 1, 6) if previewer.see(step, 5, path[step - 1], SIGMAS[first:])]


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 5]), (3, [3, 5]), (5, [5]), (9, [5]), (1, [2, 3, 4, 5])])
def test_every_few_steps_and_the_last_have_a_picture(previewer: Callable, every: int, steps: list[int]) -> None:
    assert walk(previewer(every)) == steps


@pytest.mark.parametrize(("every", "copies"), [(2, 3), (3, 2), (5, 1)])
def test_latents_are_copied_only_before_a_step_that_is_due(
    previewer: Callable, monkeypatch: pytest.MonkeyPatch, every: int, copies: int
) -> None:
    clone, made = torch.Tensor.clone, []
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: made.append(clone(tensor)) or made[-1])
    walk(previewer(every))
    assert len(made) == copies


@pytest.mark.parametrize(("first", "steps"), [(2, [4, 5]), (3, [5]), (4, [5])])
def test_a_run_that_is_resumed_has_them_at_the_same_steps(previewer: Callable, first: int, steps: list[int]) -> None:
    assert walk(previewer(2), first) == steps


@pytest.mark.parametrize("step", [2, 4, 5])
def test_the_picture_shows_the_clean_latents(previewer: Callable, tmp_path: Path, step: int) -> None:
    clean, seen = random_latents(1), previewer(2)
    for number, latents in enumerate(path_of(clean)[:step], 1):
        seen.see(number, 5, latents, SIGMAS)
    write_picture(preview_frames(clean, PLAIN), tmp_path / "expected.png", scale=8)
    found, expected = (pixels(tmp_path / name).astype(int) for name in ("preview.png", "expected.png"))
    assert np.abs(found - expected).max() <= 1


def test_latents_may_change_in_place_after_they_were_seen(previewer: Callable, tmp_path: Path) -> None:
    one, other = previewer(2), Previewer(PLAIN, tmp_path / "other.png", 2, print)
    for step, latents in enumerate(path_of(random_latents(1))[:2], 1):
        one.see(step, 5, latents.clone(), SIGMAS)
        other.see(step, 5, changing := latents.clone(), SIGMAS)
        changing.zero_()
    np.testing.assert_array_equal(pixels(tmp_path / "other.png"), pixels(tmp_path / "preview.png"))


@pytest.mark.parametrize(
    ("height", "width", "picture"),
    [(90, 160, (640, 90)), (68, 120, (480, 68)), (40, 64, (512, 80)), (10, 18, (576, 80)), (2, 4, (128, 16))],
)
def test_small_latents_are_enlarged(
    previewer: Callable, tmp_path: Path, height: int, width: int, picture: tuple[int, int]
) -> None:
    previewer(1).see(5, 5, torch.zeros(1, 4, 4, height, width), SIGMAS)
    with Image.open(tmp_path / "preview.png") as found:
        assert found.size == picture


def test_the_picture_after_the_last_step_shows_the_pipelines_latents(tiny: LocalBackend, tmp_path: Path) -> None:
    previewer = Previewer(tiny.config.latent_preview, tmp_path / "preview.png", 2, print)

    def watch(pipe: object, index: int, timestep: object, tensors: dict) -> dict:
        previewer.see(index + 1, 3, tensors["latents"], pipe.scheduler.sigmas)
        return {}

    latents = denoise(tiny, steps=3, watch=watch)
    write_picture(preview_frames(latents, tiny.config.latent_preview), tmp_path / "expected.png", scale=8)
    np.testing.assert_array_equal(pixels(tmp_path / "preview.png"), pixels(tmp_path / "expected.png"))


def test_a_folder_that_is_gone_ends_the_previews_with_one_note(tmp_path: Path, notes: list[str]) -> None:
    assert walk(Previewer(PLAIN, tmp_path / "gone" / "preview.png", 1, notes.append)) == []
    assert len(notes) == 1


def test_the_note_names_the_picture_and_the_cause(tmp_path: Path, notes: list[str]) -> None:
    walk(Previewer(PLAIN, tmp_path / "gone" / "preview.png", 2, notes.append))
    assert f"{tmp_path / 'gone' / 'preview.png'} cannot be written: [Errno 2]" in notes[0]


def test_after_a_failure_no_picture_is_tried(tmp_path: Path, notes: list[str]) -> None:
    previewer, path = Previewer(PLAIN, tmp_path / "late" / "preview.png", 1, notes.append), path_of(random_latents(1))
    for step in (1, 2):
        previewer.see(step, 5, path[step - 1], SIGMAS)
    (tmp_path / "late").mkdir()
    assert [previewer.see(step, 5, path[step - 1], SIGMAS) for step in (3, 4, 5)] == [None] * 3


def test_a_map_of_other_channels_is_refused_at_the_first_step(previewer: Callable) -> None:
    with pytest.raises(ConfigError, match=r"latent_preview.factors: 4 rows"):
        previewer(5).see(1, 5, torch.zeros(1, 16, 1, 2, 2), SIGMAS)


@pytest.mark.parametrize(("step", "total"), [(0, 5), (6, 5), (1, 8)])
def test_a_step_that_is_not_of_this_run_is_refused(previewer: Callable, step: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"step {step} of {total} does not belong to a run of 5 steps"):
        previewer(2).see(step, total, random_latents(1), SIGMAS)


def test_previews_every_no_steps_are_refused(previewer: Callable) -> None:
    with pytest.raises(ValueError, match="every must be 1 or more"):
        previewer(0)
