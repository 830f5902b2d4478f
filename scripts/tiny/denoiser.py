"""Trains a transformer and its text encoders together (flow matching), for text or for pictures with text."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import captions, world
from .clips import Batch, ClipSet
from .optimisation import Optimiser, autocast, average, run_stage
from .text import WIDTH

# The scheduler's shift of the times: sigma' = s*sigma / (1 + (s-1)*sigma).
FLOW_SHIFT = 3.0
# Training times have a smaller shift: the outline is decided at the small sigmas of the last steps.
TRAINING_SHIFT = 2.0
# Some prompts are empty, so that true guidance with a negative prompt has an unconditional prediction.
EMPTY_PROMPT = 0.05
# Prompts that leave out parts of the caption.
PARTIAL_PROMPT = 0.35
AVERAGE_DECAY = 0.998


@dataclass(frozen=True)
class Cycle:
    """One cycle of the learning rate, up to ``peak`` times the base rates."""

    steps: int
    peak: float = 1.0


class Conditions(Protocol):
    """Text encoders with what makes their inputs."""

    @property
    def trained(self) -> dict[str, nn.Module]: ...

    def encode(self, prompts: list[str], pictures: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


# A prompt for a combination, and whether it names the direction.
Wording = Callable[[world.Combination, np.random.Generator], tuple[str, bool]]


def word_text(combination: world.Combination, rng: np.random.Generator) -> tuple[str, bool]:
    """A prompt for text to video: complete, with parts left out, or empty."""
    draw = rng.uniform()
    if draw < EMPTY_PROMPT:
        return "", False
    kept = captions.without_some(rng) if draw < EMPTY_PROMPT + PARTIAL_PROMPT else captions.PARTS
    return captions.varied(combination, rng, kept), "direction" in kept


def word_picture(combination: world.Combination, rng: np.random.Generator) -> tuple[str, bool]:
    """A prompt for a picture: complete, without the colour or other parts, a direction alone, or a contradiction.

    The direction is always true; what contradicts the picture is another colour, shape or background.
    """
    draw = rng.uniform()
    if draw < EMPTY_PROMPT:
        return "", False
    if draw < 0.20:
        return captions.only_direction(combination.direction, rng), True
    if draw < 0.35:
        return captions.varied(captions.contradicting(combination, rng), rng), True
    if draw < 0.50:
        return captions.varied(combination, rng, captions.PARTS - {"colour"}), True
    if draw < 0.65:
        kept = captions.without_some(rng)
        return captions.varied(combination, rng, kept), "direction" in kept
    return captions.varied(combination, rng), True


def build(seed: int, image_condition_type: str | None = None) -> HunyuanVideoTransformer3DModel:
    """The 13 B checkpoint's transformer class at width 128 (2.7 M parameters)."""
    torch.manual_seed(seed + 1)
    return HunyuanVideoTransformer3DModel(
        num_attention_heads=4, attention_head_dim=32, num_layers=2, num_single_layers=4, num_refiner_layers=1,
        text_embed_dim=WIDTH, pooled_projection_dim=WIDTH, rope_axes_dim=(8, 12, 12),
        image_condition_type=image_condition_type,
    )  # fmt: skip


def train(
    name: str,
    transformer: HunyuanVideoTransformer3DModel,
    conditions: Conditions,
    wording: Wording,
    sets: Sequence[ClipSet],
    work_dir: Path,
    seed: int,
    cycles: tuple[Cycle, ...],
    origin: str,
) -> None:
    """Train the transformer and ``conditions.trained`` over the cycles; afterwards they have the averaged weights.

    Args:
        name: of the stage's log and state in ``work_dir``.
        origin: what the weights are before training, for the plan in the state.
    """
    modules = {"transformer": transformer} | conditions.trained
    averaged = {f"averaged_{key}": copy.deepcopy(module) for key, module in modules.items()}
    muon, adamw = [], []
    for key, parameter in itertools.chain(*(m.named_parameters() for m in modules.values())):
        in_block = "transformer_blocks" in key or "refiner_blocks" in key or ".layers." in f".{key}"
        (muon if in_block and parameter.dim() == 2 else adamw).append(parameter)

    first = 0

    def average_all(step: int) -> None:
        for key, module in modules.items():
            average(averaged[f"averaged_{key}"], module, step, AVERAGE_DECAY)

    # For such short sequences, plain bfloat16 products are faster than the fused kernel, whose
    # backward pass alone took a third of a step.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # despite its name, also on the CPU
    draw = functools.partial(_loss, transformer, conditions, wording, sets)
    buckets = [asdict(each.bucket) for each in sets]
    with sdpa_kernel(SDPBackend.MATH):
        for cycle in cycles:
            run_stage(
                name,
                first + cycle.steps,
                work_dir,
                modules | averaged,
                Optimiser(muon, adamw, muon_lr=3e-3 * cycle.peak, adamw_lr=1e-3 * cycle.peak),
                lambda step: draw(np.random.default_rng([seed, 20, step])),
                plan={"seed": seed, "origin": origin, "cycle": asdict(cycle), "buckets": buckets},
                rate_from=first,
                after_step=average_all,
            )
            first += cycle.steps
    state = torch.load(work_dir / f"{name}.pt", weights_only=True)
    for key, module in modules.items():
        module.load_state_dict(state[f"averaged_{key}"])


def _loss(
    transformer: HunyuanVideoTransformer3DModel,
    conditions: Conditions,
    wording: Wording,
    sets: Sequence[ClipSet],
    rng: np.random.Generator,
) -> torch.Tensor:
    shares = np.array([s.bucket.share for s in sets])
    batch = sets[rng.choice(len(sets), p=shares / shares.sum())].draw(rng)
    prompts, directed = zip(*(wording(c, rng) for c in batch.combinations), strict=True)
    latents, size = batch.latents, len(prompts)
    # Stratified logit-normal times: one draw in each of `size` equal slices of the unit interval.
    quantiles = torch.from_numpy((np.arange(size) + rng.uniform(size=size)) / size).clamp(1e-4, 1 - 1e-4)
    sigma = torch.sigmoid(1.2 * torch.special.ndtri(quantiles)).float()
    sigma = TRAINING_SHIFT * sigma / (1 + (TRAINING_SHIFT - 1) * sigma)
    noise = torch.from_numpy(rng.standard_normal(tuple(latents.shape), dtype=np.float32))
    spread = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - spread) * latents + spread * noise
    # As HunyuanVideoImageToVideoPipeline: the first latent frame is the encoded picture, and only the others move.
    given = transformer.config.image_condition_type == "token_replace"
    if given:
        noisy = torch.cat([batch.first, noisy[:, :, 1:]], dim=2)
    # Random guidance, so that the model learns to ignore it.
    guidance = torch.from_numpy(rng.uniform(1, 12, size=size).astype(np.float32)) * 1000
    with autocast():
        prompt_embeds, pooled, mask = conditions.encode(list(prompts), batch.pictures)
        velocity = transformer(
            hidden_states=noisy,
            timestep=sigma * 1000,
            encoder_hidden_states=prompt_embeds,
            encoder_attention_mask=mask,
            pooled_projections=pooled,
            guidance=guidance,
            return_dict=False,
        )[0]
    squares = (velocity.float() - (noise - latents)).square() * _weights(batch, directed)
    return squares[:, :, int(given) :].mean()


def _weights(batch: Batch, directed: Sequence[bool]) -> torch.Tensor:
    """Loss weights [B, 1, T, H, W] of mean 1: larger where an object can be.

    They depend on the prompt alone, so they do not bias the conditional mean: a prompt without a direction has the
    places of all directions.
    """
    names = list(world.DIRECTIONS)
    heat = torch.stack(
        [
            batch.heat[names.index(c.direction)] if has_direction else batch.heat.amax(dim=0)
            for c, has_direction in zip(batch.combinations, directed, strict=True)
        ]
    )
    weight = 1 + 4 * heat
    return weight / weight.mean(dim=(1, 2, 3, 4), keepdim=True)
