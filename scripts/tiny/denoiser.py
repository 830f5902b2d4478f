"""Trains the text encoders and the transformer of the built-in checkpoint together (flow matching)."""

from __future__ import annotations

import copy
import functools
import itertools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import autoencoder, captions, world
from .optimisation import Optimiser, autocast, average, run_stage, save_atomically
from .text import WIDTH, TextStack

# Training times are shifted as in the scheduler: sigma' = s*sigma / (1 + (s-1)*sigma).
FLOW_SHIFT = 3.0
# Some prompts are empty, so that true guidance with a negative prompt has an unconditional prediction.
EMPTY_PROMPT = 0.05


@dataclass(frozen=True)
class Cycle:
    """One cycle of the learning rate, up to ``peak`` times the base rates.

    Clips of the ``WEAK`` pairs are drawn ``emphasis`` times as often as others.
    """

    steps: int
    peak: float = 1.0
    emphasis: float = 1.0


# The second cycle starts from the result of the first, and its small steps at the end smooth out what one
# cycle leaves uneven (paths, outlines). The third is for the pairs that were weakest after it: blue on
# grey, which differs least in the latents, had bent outlines.
CYCLES = (Cycle(2300), Cycle(4000), Cycle(800, peak=0.4, emphasis=4.0))
WEAK = (("green", "grey"), ("blue", "grey"))


@dataclass(frozen=True)
class Bucket:
    """Clips of one size and length; ``share`` is their fraction of all steps."""

    size: tuple[int, int]
    num_frames: int
    clips: int
    batch: int
    share: float

    @property
    def name(self) -> str:
        return f"{self.size[0]}x{self.size[1]}x{self.num_frames}"


BUCKETS = (
    Bucket(world.LANDSCAPE, 17, 900, 24, 0.38),
    Bucket(world.PORTRAIT, 17, 900, 24, 0.38),
    Bucket(world.LANDSCAPE, 33, 240, 12, 0.10),
    Bucket(world.PORTRAIT, 33, 240, 12, 0.10),
    Bucket((112, 112), 17, 120, 24, 0.04),
)


def build(seed: int) -> HunyuanVideoTransformer3DModel:
    """The 13 B checkpoint's transformer class at width 128 (2.7 M parameters)."""
    torch.manual_seed(seed + 1)
    return HunyuanVideoTransformer3DModel(
        num_attention_heads=4, attention_head_dim=32, num_layers=2, num_single_layers=4, num_refiner_layers=1,
        text_embed_dim=WIDTH, pooled_projection_dim=WIDTH, rope_axes_dim=(8, 12, 12),
    )  # fmt: skip


def train(
    transformer: HunyuanVideoTransformer3DModel,
    text: TextStack,
    vae: AutoencoderKLHunyuanVideo,
    work_dir: Path,
    seed: int,
    cycles: tuple[Cycle, ...],
    buckets: tuple[Bucket, ...] = BUCKETS,
) -> None:
    """Train all three modules over the cycles; afterwards they have the averaged weights."""
    sets = [_ClipSet(bucket, vae, work_dir, seed) for bucket in buckets]
    modules = {"transformer": transformer} | text.modules
    averaged = {f"averaged_{name}": copy.deepcopy(module) for name, module in modules.items()}
    muon, adamw = [], []
    for name, parameter in itertools.chain(*(m.named_parameters() for m in modules.values())):
        in_block = "transformer_blocks" in name or "refiner_blocks" in name or ".layers." in f".{name}"
        (muon if in_block and parameter.dim() == 2 else adamw).append(parameter)

    def average_all(step: int) -> None:
        for name, module in modules.items():
            average(averaged[f"averaged_{name}"], module, step)

    # For such short sequences, plain bfloat16 products are faster than the fused kernel, whose
    # backward pass alone took a third of a step.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # despite its name, also on the CPU
    with sdpa_kernel(SDPBackend.MATH):
        first = 0
        for cycle in cycles:
            draw = functools.partial(_loss, transformer, text, sets, cycle.emphasis)
            run_stage(
                "denoiser",
                first + cycle.steps,
                work_dir,
                modules | averaged,
                Optimiser(muon, adamw, muon_lr=3e-3 * cycle.peak, adamw_lr=1e-3 * cycle.peak),
                lambda step, draw=draw: draw(np.random.default_rng([seed, 20, step])),
                plan={"seed": seed, "cycle": asdict(cycle), "buckets": [asdict(bucket) for bucket in buckets]},
                rate_from=first,
                after_step=average_all,
            )
            first += cycle.steps
    state = torch.load(work_dir / "denoiser.pt", weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state[f"averaged_{name}"])


def _loss(
    transformer: HunyuanVideoTransformer3DModel,
    text: TextStack,
    sets: list[_ClipSet],
    emphasis: float,
    rng: np.random.Generator,
) -> torch.Tensor:
    shares = np.array([s.bucket.share for s in sets])
    chosen = sets[rng.choice(len(sets), p=shares / shares.sum())]
    latents, combinations, weight = chosen.draw(rng, emphasis)
    batch = len(combinations)
    prompts = ["" if rng.uniform() < EMPTY_PROMPT else captions.varied(c, rng) for c in combinations]
    # Stratified logit-normal times: one draw in each of `batch` equal slices of the unit interval.
    quantiles = torch.from_numpy((np.arange(batch) + rng.uniform(size=batch)) / batch).clamp(1e-4, 1 - 1e-4)
    sigma = torch.sigmoid(1.2 * torch.special.ndtri(quantiles)).float()
    sigma = FLOW_SHIFT * sigma / (1 + (FLOW_SHIFT - 1) * sigma)
    noise = torch.from_numpy(rng.standard_normal(tuple(latents.shape), dtype=np.float32))
    spread = sigma.view(-1, 1, 1, 1, 1)
    # Random guidance, so that the model learns to ignore it.
    guidance = torch.from_numpy(rng.uniform(1, 12, size=batch).astype(np.float32)) * 1000
    with autocast():
        prompt_embeds, pooled, mask = text.encode(prompts)
        velocity = transformer(
            hidden_states=(1 - spread) * latents + spread * noise,
            timestep=sigma * 1000,
            encoder_hidden_states=prompt_embeds,
            encoder_attention_mask=mask,
            pooled_projections=pooled,
            guidance=guidance,
            return_dict=False,
        )[0]
    return ((velocity.float() - (noise - latents)).square() * weight).mean()


class _ClipSet:
    """Encoded clips of one bucket, cached in the working folder."""

    def __init__(self, bucket: Bucket, vae: AutoencoderKLHunyuanVideo, work_dir: Path, seed: int):
        self.bucket = bucket
        path = work_dir / f"latents-{bucket.name}.pt"
        if not path.exists():
            print(f"encoding {bucket.clips} clips of {bucket.name}", flush=True)
            save_atomically(self._make(vae, seed), path)
        state = torch.load(path, weights_only=True)
        self.latents, self.indices, self.heat = state["latents"], state["indices"], state["heat"]
        self.combinations = world.training_combinations()
        pairs = [(self.combinations[i].colour, self.combinations[i].background) for i in self.indices]
        self.is_weak = np.array([pair in WEAK for pair in pairs])

    def draw(
        self, rng: np.random.Generator, emphasis: float
    ) -> tuple[torch.Tensor, list[world.Combination], torch.Tensor]:
        """A batch: scaled latents [B, 16, T, H, W], combinations, loss weights [B, 1, T, H, W] of mean 1."""
        count, size = len(self.latents), self.bucket.batch
        # Sampling weights depend only on the caption, so they do not bias the conditional mean.
        weights = np.where(self.is_weak, emphasis, 1.0)
        chosen = rng.integers(count, size=size) if emphasis == 1 else rng.choice(count, size, p=weights / weights.sum())
        chosen = torch.from_numpy(chosen)
        combinations = [self.combinations[i] for i in self.indices[chosen]]
        heat = self.heat[[list(world.DIRECTIONS).index(c.direction) for c in combinations]]
        weight = 1 + 4 * heat
        return self.latents[chosen].float(), combinations, weight / weight.mean(dim=(1, 2, 3, 4), keepdim=True)

    @torch.no_grad()
    def _make(self, vae: AutoencoderKLHunyuanVideo, seed: int) -> dict[str, torch.Tensor]:
        bucket = self.bucket
        combinations = world.training_combinations()
        rng = np.random.default_rng([seed, 21, *bucket.size, bucket.num_frames])
        # 7 and 180 are coprime, so any number of clips spreads evenly over the combinations.
        indices = np.arange(bucket.clips) * 7 % len(combinations)
        latents, masks = [], {direction: [] for direction in world.DIRECTIONS}
        for index in indices:
            combination = combinations[index]
            scene = world.sample_scene(rng, combination, bucket.size, bucket.num_frames)
            frames = world.render(scene)
            pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
            with autocast():
                latents.append((autoencoder.encode(vae, pixels) * vae.config.scaling_factor).half())
            covered = np.abs(frames - frames[:, :1, :1]).max(axis=-1) > 0.05
            masks[combination.direction].append(_to_latent_grid(torch.from_numpy(covered).float()))
        # Where an object moving in this direction can be, over all clips. It depends only on the caption,
        # so weighting the loss by it does not bias the conditional mean.
        heat = torch.stack([torch.stack(m).mean(dim=0) for m in masks.values()])
        return {
            "latents": torch.cat(latents),
            "indices": torch.from_numpy(indices),
            "heat": (heat / heat.amax(dim=(1, 2, 3), keepdim=True)).unsqueeze(1),
        }


def _to_latent_grid(masks: torch.Tensor) -> torch.Tensor:
    """Max-pool object masks [F, H, W] to the latents' grid [(F-1)/4+1, H/8, W/8]."""
    first, rest = masks[:1], masks[1:]
    grouped = rest.unflatten(0, (-1, 4)).amax(dim=1)
    return F.max_pool2d(torch.cat([first, grouped])[:, None], 8)[:, 0]
