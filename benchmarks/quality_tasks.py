"""What the quality benchmark requests: its runs, and a task for each of the 216 combinations.

A task for image to video has a scene as well: its first frame is the picture, and the prompt says where the shape goes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from tiny.captions import PARTS, contradicting, only_direction, varied, without_some
from tiny.world import LANDSCAPE, PORTRAIT, Combination, Scene, combinations, render, sample_scene

ORIENTATIONS = {"landscape": (LANDSCAPE,), "portrait": (PORTRAIT,), "alternating": (LANDSCAPE, PORTRAIT)}
WORDS = ("colour", "direction", "background", "shape")


@dataclass(frozen=True)
class Run:
    """One pass over the combinations."""

    steps: int
    frames: int
    orientation: str

    def __str__(self) -> str:
        return f"{self.steps} steps, {self.frames} frames, {self.orientation}"


# Each run is one video of each of the 216 combinations.
PLAN = (
    Run(steps=8, frames=17, orientation="landscape"),
    Run(steps=8, frames=17, orientation="portrait"),
    Run(steps=4, frames=17, orientation="landscape"),
    Run(steps=4, frames=17, orientation="portrait"),
    Run(steps=2, frames=17, orientation="alternating"),
    Run(steps=8, frames=33, orientation="alternating"),
)


@dataclass(frozen=True)
class Task:
    """One requested video.

    Attributes:
        combination: what the video should show; with a picture, what the picture shows and where it should go.
        said: the words that are judged against ``combination``: those of the prompt, or with a picture all of them.
        wording: kind of prompt: ``caption``, ``partial``, ``direction`` or ``contradiction``.
        scene: begins with the picture; None for text to video.
    """

    run: Run
    combination: Combination
    prompt: str
    size: tuple[int, int]
    seed: int
    said: tuple[str, ...] = WORDS
    wording: str = "caption"
    scene: Scene | None = None

    @property
    def picture(self) -> np.ndarray | None:
        """First frame of the scene: uint8 RGB, [height, width, 3]."""
        return None if self.scene is None else np.round(render(self.scene)[0] * 255).astype(np.uint8)


def choose_runs(steps: Sequence[int] | None, frames: Sequence[int] | None) -> list[Run]:
    """The planned runs with these steps and frames; other combinations run with alternating orientation.

    If only one of the two is given, the other is as in the plan, or 17 frames and 8 steps.
    """
    if steps and frames:
        pairs = list(product(steps, frames))
    elif steps:
        pairs = [(s, f) for s in steps for f in _unique(r.frames for r in PLAN if r.steps == s) or [17]]
    elif frames:
        pairs = [(s, f) for f in frames for s in _unique(r.steps for r in PLAN if r.frames == f) or [8]]
    else:
        return list(PLAN)
    runs = []
    for s, f in _unique(pairs):
        runs += [r for r in PLAN if (r.steps, r.frames) == (s, f)] or [Run(s, f, "alternating")]
    return runs


def _unique(items: Iterable) -> list:
    return list(dict.fromkeys(items))


def make_tasks(run: Run, seed: int, limit: int | None = None, partial: bool = False) -> list[Task]:
    """The text-to-video tasks of a run, shuffled, so that the first ``limit`` are a fair sample.

    With ``partial`` every prompt leaves out one to four of the words.
    """
    sizes = ORIENTATIONS[run.orientation]
    rng = np.random.default_rng(_entropy(run, seed))
    every = combinations()
    tasks = []
    for rank, index in enumerate(rng.permutation(len(every))[:limit]):
        kept = without_some(rng) if partial else PARTS
        prompt = varied(every[index], rng, kept)
        said = tuple(word for word in WORDS if word in kept)
        wording = "partial" if partial else "caption"
        size = sizes[rank % len(sizes)]
        tasks.append(Task(run, every[index], prompt, size, int(rng.integers(2**32)), said, wording))
    return tasks


def make_picture_tasks(run: Run, seed: int, limit: int | None = None, contradict: bool = False) -> list[Task]:
    """The image-to-video tasks of a run, shuffled like those of :func:`make_tasks`, each with a new picture.

    Half of the prompts are captions, half give the direction alone. With ``contradict`` every prompt is a caption with
    another colour, shape or background than the picture; the picture's is right.
    """
    sizes = ORIENTATIONS[run.orientation]
    rng = np.random.default_rng([*_entropy(run, seed), 1])
    every = combinations()
    tasks = []
    for rank, index in enumerate(rng.permutation(len(every))[:limit]):
        combination, size = every[index], sizes[rank % len(sizes)]
        scene = sample_scene(rng, combination, size, run.frames, anywhere=True)
        if contradict:
            wording, prompt = "contradiction", varied(contradicting(combination, rng), rng)
        elif rng.uniform() < 0.5:
            wording, prompt = "direction", only_direction(combination.direction, rng)
        else:
            wording, prompt = "caption", varied(combination, rng)
        tasks.append(Task(run, combination, prompt, size, int(rng.integers(2**32)), WORDS, wording, scene))
    return tasks


def _entropy(run: Run, seed: int) -> list[int]:
    return [seed, run.steps, run.frames, list(ORIENTATIONS).index(run.orientation)]
