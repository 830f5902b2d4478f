"""The world of the built-in checkpoint: one coloured shape that moves across a plain background.

Knows what a scene is, how it looks and which scenes are kept out of training.
Knows nothing about captions, models or files.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

# RGB, 0..255, clearly different from each other and from every background.
COLOURS = {
    "red": (220, 40, 40),
    "green": (20, 205, 60),
    "blue": (50, 90, 235),
    "yellow": (240, 210, 40),
    "purple": (155, 50, 195),
    "white": (242, 242, 242),
}
SHAPES = ("circle", "square", "triangle")
# Unit vectors in image coordinates: x grows to the right, y grows downwards.
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKGROUNDS = {"black": (8, 8, 8), "grey": (120, 120, 120), "navy": (18, 24, 84)}

LANDSCAPE = (144, 80)
PORTRAIT = (80, 144)
RADIUS_PX = (12.0, 15.0)
SPEED_PX = (1.0, 1.45)
# The middle of the path stays within this distance of the middle of the canvas.
OFFSET_PX = 7.0
# What "radius" means for each shape, chosen so that the three cover a similar area.
SQUARE_HALF_SIDE = 0.90
TRIANGLE_CIRCUMRADIUS = 1.30


@dataclass(frozen=True)
class Combination:
    """The content of a caption: 6 colours x 3 shapes x 4 directions x 3 backgrounds = 216 combinations."""

    colour: str
    shape: str
    direction: str
    background: str


@dataclass(frozen=True)
class Scene:
    """A combination with the values that a caption does not contain, in pixels and pixels per frame."""

    combination: Combination
    width: int
    height: int
    num_frames: int
    radius: float
    speed: float
    middle_x: float
    middle_y: float

    def centre(self, frame: int) -> tuple[float, float]:
        """Centre (x, y) of the shape in one frame, in pixels."""
        dx, dy = DIRECTIONS[self.combination.direction]
        travelled = (frame - (self.num_frames - 1) / 2) * self.speed
        return self.middle_x + dx * travelled, self.middle_y + dy * travelled


def combinations() -> list[Combination]:
    """All 216 combinations, in a fixed order."""
    return [Combination(*c) for c in itertools.product(COLOURS, SHAPES, DIRECTIONS, BACKGROUNDS)]


def is_held_out(combination: Combination) -> bool:
    """True for the 36 combinations that training never sees.

    One colour for each of the 36 (shape, direction, background), spread like a Latin square, so
    that every single word and every pair of words still occurs in training.
    """
    total = (
        list(COLOURS).index(combination.colour)
        + 2 * SHAPES.index(combination.shape)
        + list(DIRECTIONS).index(combination.direction)
        + 3 * list(BACKGROUNDS).index(combination.background)
    )
    return total % len(COLOURS) == 0


def training_combinations() -> list[Combination]:
    """The 180 combinations that training may see."""
    return [c for c in combinations() if not is_held_out(c)]


def sample_scene(
    rng: np.random.Generator,
    combination: Combination,
    size: tuple[int, int],
    num_frames: int,
    *,
    anywhere: bool = False,
) -> Scene:
    """Draw a scene in which the whole shape stays inside the canvas in every frame.

    Args:
        rng: source of the radius, the speed and the path.
        combination: what is shown.
        size: canvas (width, height) in pixels.
        num_frames: length of the clip in frames.
        anywhere: the middle of the path is anywhere, not only near the middle of the canvas.
    """
    width, height = size
    offset = max(size) if anywhere else OFFSET_PX
    dx, dy = DIRECTIONS[combination.direction]
    radius = rng.uniform(*RADIUS_PX)
    reach = radius * (TRIANGLE_CIRCUMRADIUS if combination.shape == "triangle" else 1.0) + 1
    along = width if dx else height
    fastest = (along - 2 * reach) / max(1, num_frames - 1)
    speed = min(rng.uniform(*SPEED_PX), fastest)
    half = speed * (num_frames - 1) / 2
    room_x = max(0.0, min(offset, width / 2 - reach - half * abs(dx)))
    room_y = max(0.0, min(offset, height / 2 - reach - half * abs(dy)))
    return Scene(
        combination=combination,
        width=width,
        height=height,
        num_frames=num_frames,
        radius=radius,
        speed=speed,
        middle_x=width / 2 + rng.uniform(-room_x, room_x),
        middle_y=height / 2 + rng.uniform(-room_y, room_y),
    )


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Distance in pixels from the outline of a shape centred at (0, 0); negative inside.

    Exact near the edges, which is all that anti-aliasing needs; corners are mitred, not rounded.
    """
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - SQUARE_HALF_SIDE * radius
    # An equilateral triangle, tip up, is three half-planes at the distance of its inradius.
    inradius = TRIANGLE_CIRCUMRADIUS * radius / 2
    slope = np.sqrt(3) / 2
    return np.maximum(y, slope * np.abs(x) - y / 2) - inradius


def coverage(shape: str, centre: tuple[float, float], radius: float, size: tuple[int, int]) -> np.ndarray:
    """Fraction of each pixel that the shape covers: float32, [height, width], 0..1."""
    width, height = size
    x = np.arange(width, dtype=np.float32)[None, :] + 0.5 - centre[0]
    y = np.arange(height, dtype=np.float32)[:, None] + 0.5 - centre[1]
    return np.clip(0.5 - signed_distance(shape, x, y, radius), 0.0, 1.0).astype(np.float32)


def render(scene: Scene) -> np.ndarray:
    """Draw a scene: float32, [frames, height, width, 3], 0..1."""
    combination = scene.combination
    colour = np.asarray(COLOURS[combination.colour], dtype=np.float32) / 255
    background = np.asarray(BACKGROUNDS[combination.background], dtype=np.float32) / 255
    masks = np.stack(
        [
            coverage(combination.shape, scene.centre(f), scene.radius, (scene.width, scene.height))
            for f in range(scene.num_frames)
        ]
    )[..., None]
    return background + masks * (colour - background)
