"""The complete training: the autoencoder, ``tiny``, its latent preview, and ``tiny-i2v`` from its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME

from . import autoencoder, denoiser, picture, preview, text, world
from .clips import Bucket, ClipSet
from .denoiser import Cycle
from .export import export


@dataclass(frozen=True)
class Denoising:
    """Cycles and clips of a transformer's training."""

    cycles: tuple[Cycle, ...]
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True)
class Plan:
    """Number of steps per stage, and number of clips for training and measuring.

    ``from_scratch`` and ``text`` start from nothing, ``continued`` and ``text_again`` from a finished checkpoint,
    ``picture`` from the weights of the text model.
    """

    from_scratch: autoencoder.Steps
    continued: autoencoder.Steps
    sizes: autoencoder.Sizes
    statistics_clips: int
    check_clips: int
    text: Denoising
    text_again: Denoising
    picture: Denoising
    preview_clips: int
    preview_check_clips: int


TEXT = Denoising(
    # The second cycle starts from the result of the first, and its small steps at the end smooth out what one
    # cycle leaves uneven (paths, outlines).
    cycles=(Cycle(2300), Cycle(4800)),
    buckets=(
        Bucket(world.LANDSCAPE, 17, 1080, 24, 0.38),
        Bucket(world.PORTRAIT, 17, 1080, 24, 0.38),
        Bucket(world.LANDSCAPE, 33, 240, 12, 0.10),
        Bucket(world.PORTRAIT, 33, 240, 12, 0.10),
        Bucket((112, 112), 17, 120, 24, 0.04),
    ),
)
PICTURE = Denoising(
    cycles=(Cycle(3000, peak=0.7),),
    buckets=(
        Bucket(world.LANDSCAPE, 17, 900, 24, 0.40, anywhere=True),
        Bucket(world.PORTRAIT, 17, 900, 24, 0.40, anywhere=True),
        Bucket(world.LANDSCAPE, 33, 180, 12, 0.08, anywhere=True),
        Bucket(world.PORTRAIT, 33, 180, 12, 0.08, anywhere=True),
        Bucket((112, 112), 17, 120, 24, 0.04, anywhere=True),
    ),
)
FULL = Plan(
    from_scratch=autoencoder.FROM_SCRATCH,
    continued=autoencoder.CONTINUED,
    sizes=autoencoder.Sizes(),
    statistics_clips=48,
    check_clips=12,
    text=TEXT,
    text_again=replace(TEXT, cycles=(Cycle(2000),)),
    picture=PICTURE,
    preview_clips=preview.CLIPS,
    preview_check_clips=preview.CHECK_CLIPS,
)


def _quick(denoising: Denoising) -> Denoising:
    # Six clips hold every direction, which each set of clips needs.
    buckets = tuple(replace(bucket, clips=6, batch=2, num_frames=5) for bucket in denoising.buckets[:2])
    return Denoising((Cycle(1), Cycle(1, peak=0.5)), buckets)


QUICK = Plan(
    from_scratch=autoencoder.Steps(2, 1, 1),
    continued=autoencoder.Steps(0, 1, 1),
    sizes=autoencoder.Sizes(crops=4, pictures=2, clips=((1, 5),), whole_frames=5),
    statistics_clips=2,
    check_clips=1,
    text=_quick(TEXT),
    text_again=_quick(TEXT),
    picture=_quick(PICTURE),
    preview_clips=2,
    preview_check_clips=1,
)


def train(
    work_dir: Path,
    output: Path,
    *,
    seed: int,
    threads: int,
    plan: Plan,
    start: Path | None = None,
    stages: Collection[str] = ("autoencoder", "text", "picture"),
) -> None:
    """Run or resume the stages, and write the checkpoints that they make, ``tiny`` and ``tiny-i2v``, into ``output``.

    Args:
        start: a finished text-to-video checkpoint whose weights training continues from; None trains from scratch.
        stages: what is trained; what the others would make is that of ``start``.

    Raises:
        ValueError: ``stages`` lacks one that only ``start`` could replace.
    """
    if start is None and not {"autoencoder", "text"} <= set(stages):
        raise ValueError("the stages autoencoder and text are needed without a checkpoint to start from")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    vae = train_autoencoder(work_dir, seed, plan, start, "autoencoder" in stages)
    stack, transformer = build_text(seed, start)
    if "text" in stages:
        train_text(vae, stack, transformer, work_dir, seed, plan.text_again if start else plan.text, start)
        export(output / "tiny", stack, transformer, vae)
        print(f"written to {output / 'tiny'}; crop_start of its template is {stack.crop_start}", flush=True)
        fit_preview(output / "tiny", seed=seed, threads=threads, plan=plan)
    if "picture" in stages:
        pictures, of_pictures = train_picture(vae, stack, transformer, work_dir, seed, plan.picture)
        export(output / "tiny-i2v", pictures, of_pictures, vae)
        print(f"written to {output / 'tiny-i2v'}; its template is {pictures.prompt_template()}", flush=True)


def train_autoencoder(
    work_dir: Path, seed: int, plan: Plan, start: Path | None, again: bool = True
) -> AutoencoderKLHunyuanVideo:
    """The trained autoencoder; prints its PSNR on new clips. That of ``start`` as it is if not trained ``again``."""
    if start is None:
        vae, steps, origin = autoencoder.build(), plan.from_scratch, "from_scratch"
    else:
        vae = AutoencoderKLHunyuanVideo.from_pretrained(start / "vae", dtype=torch.float32)
        steps, origin = plan.continued, digest(start / "vae" / SAFETENSORS_WEIGHTS_NAME)
        if not again:
            return vae
    vae.requires_grad_(True)
    autoencoder.train(vae, work_dir, seed, steps, plan.statistics_clips, plan.sizes, origin)
    decibels = autoencoder.psnr(vae, np.random.default_rng([seed, 4]), plan.check_clips, plan.sizes.whole_frames)
    print(f"autoencoder: {decibels:.1f} dB on new clips", flush=True)
    return vae


def digest(path: Path) -> str:
    """SHA-256 of a file, for the plan in the states."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_text(seed: int, start: Path | None) -> tuple[text.TextStack, HunyuanVideoTransformer3DModel]:
    """Text encoders and transformer of ``tiny``, with new weights or those of ``start``."""
    stack, transformer = text.build(seed), denoiser.build(seed)
    if start is not None:
        text.take_weights(stack, start)
        transformer = HunyuanVideoTransformer3DModel.from_pretrained(start / "transformer", dtype=torch.float32)
    transformer.train().requires_grad_(True)
    return stack, transformer


def train_text(
    vae: AutoencoderKLHunyuanVideo,
    stack: text.TextStack,
    transformer: HunyuanVideoTransformer3DModel,
    work_dir: Path,
    seed: int,
    plan: Denoising,
    start: Path | None,
) -> None:
    """Train the text encoders and the transformer of ``tiny``."""
    origin = "from_scratch" if start is None else digest(start / "transformer" / SAFETENSORS_WEIGHTS_NAME)
    sets = [ClipSet(bucket, vae, work_dir, seed) for bucket in plan.buckets]
    denoiser.train("text", transformer, stack, denoiser.word_text, sets, work_dir, seed, plan.cycles, origin)


def train_picture(
    vae: AutoencoderKLHunyuanVideo,
    trained: text.TextStack,
    of_text: HunyuanVideoTransformer3DModel,
    work_dir: Path,
    seed: int,
    plan: Denoising,
) -> tuple[picture.PictureStack, HunyuanVideoTransformer3DModel]:
    """The trained Llava and transformer of ``tiny-i2v``, from those of ``tiny``: all their shapes are the same."""
    stack = picture.build(trained, seed)
    transformer = denoiser.build(seed, "token_replace")
    transformer.load_state_dict(of_text.state_dict())
    sets = [ClipSet(bucket, vae, work_dir, seed) for bucket in plan.buckets]
    denoiser.train("picture", transformer, stack, denoiser.word_picture, sets, work_dir, seed, plan.cycles, "text")
    return stack, transformer


def fit_preview(checkpoint: Path, *, seed: int, threads: int, plan: Plan) -> None:
    """Fit and print the latent preview of a finished checkpoint."""
    torch.set_num_threads(threads)
    preview.fit_checkpoint(checkpoint, seed, plan.preview_clips, plan.preview_check_clips)
