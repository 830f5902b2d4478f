"""Recognises the content of a clip from its pixels alone: background, colour, direction and shape of one object.

This is the judge of the built-in checkpoint's videos. ``read_clip`` works from the frames alone and does not know the
request; ``judge`` compares its result with a combination. Pure numpy.

Limits: one plain object on a plain background. A shape is always a circle, a square or an upright triangle; the IoU
measures how well the object fits that ideal outline. Pixels that differ from the background by less than
``NOISE_LEVELS`` count as background.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from tiny.world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Combination, coverage, signed_distance

# All values in pixels below are for frames with about this many pixels on the long side.
LONG_SIDE = 144
MIN_IOU = 0.85  # below this, the object does not have that shape
# About half the distance of the two closest colours: farther from every colour, a pixel has no named colour.
MAX_COLOUR_DISTANCE = 60.0
MAX_BACKGROUND_DISTANCE = 40.0
MIN_CONTRAST = 40.0
MIN_AREA_PX = 60.0
MIN_TRAVEL_PX = 3.0
NOISE_LEVELS = 18.0  # of 255, in RGB distance
MAX_OFF_PATH_LEVELS = 8.0  # above this, colour away from the whole path is a ghost
# The encoder's 8x8 blocks carry traces of the shape this far; those of an ideal clip reach 12 levels within 3 px.
PATH_MARGIN_PX = 8.0
MIN_NOISE_SHARE = 0.1  # of the contrast between object and background
SAMPLED_FRAMES = 5
WINDOW_PX = 24
# Even the smallest object covers more than the 1.5 % of a frame above this percentile.
OBJECT_PERCENTILE = 98.5
# Area of each shape with radius 1, as ``coverage`` draws it.
UNIT_AREA = {"circle": np.pi, "square": 3.24, "triangle": 2.195}
# Moves of the outline search (x, y, radius); combining y and radius keeps an edge of the triangle in place.
STRAIGHT = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
SLANTED = ((0, 0.5, 1), (0, -0.5, 1), (0, 0.5, -1), (0, -0.5, -1))
MOVES = np.array([*STRAIGHT, *SLANTED])


@dataclass(frozen=True)
class Reading:
    """Content of a clip; None for unknown properties.

    Attributes:
        shape: the best-fitting shape, whether or not it fits well.
        iou: mean overlap of the object with the ideal outline of ``shape``, 0..1.
        margin: how much better ``shape`` fits than the second best.
        ghost: stray pixels away from the outline, as a share of the outline's area.
        ghost_levels: the strongest stray colour away from the outline in any sampled frame: RGB distance from the
            background over 3x3 pixels, of 255 levels a channel. ``NOISE_LEVELS`` does not apply to it.
        found: whether the object is in every frame.
        off_path_levels: the largest difference, in any channel of any frame, from the nearest background of the world:
            over 3x3 pixels, of 255 levels, more than ``PATH_MARGIN_PX`` away from the path of the whole object.
    """

    background: str | None
    colour: str | None = None
    direction: str | None = None
    shape: str | None = None
    iou: float = 0.0
    margin: float = 0.0
    ghost: float = 0.0
    found: bool = False
    ghost_levels: float = 0.0
    off_path_levels: float = 0.0


class _Fit(NamedTuple):
    """The best outline of one shape in one frame: (x, y, radius), and which pixels are away from it."""

    iou: float
    ghost: float
    away: np.ndarray
    outline: np.ndarray


def judge(
    reading: Reading | None, asked: Combination, said: Collection[str] = ("colour", "direction", "background", "shape")
) -> dict[str, bool]:
    """Which of the four words a clip shows correctly; None is a missing clip.

    A word that the prompt did not say may be any of the world; the outline must be that of a whole shape anyway.
    """
    if reading is None:
        return {"colour": False, "direction": False, "background": False, "shape": False}
    right = {
        part: getattr(reading, part) == getattr(asked, part) if part in said else getattr(reading, part) is not None
        for part in ("colour", "direction", "background", "shape")
    }
    return right | {"shape": right["shape"] and reading.iou >= MIN_IOU}


def read_clip(frames: np.ndarray) -> Reading:
    """Read a clip: uint8 RGB, [frames, height, width, 3], any size.

    If the object is missing in a frame, direction and shape are None.
    """
    clip = shrink(frames)
    backdrop = border_median(clip)
    background = nearest_name(backdrop, BACKGROUNDS, MAX_BACKGROUND_DISTANCE)
    sampled = np.unique(np.linspace(0, len(clip) - 1, SAMPLED_FRAMES).round().astype(int))
    seen = [object_colour(clip[f], backdrop) for f in sampled]
    present = [colour for colour in seen if colour is not None]
    if not present:
        return Reading(background)
    names = {nearest_name(colour, COLOURS, MAX_COLOUR_DISTANCE) for colour in present}
    colour = names.pop() if len(names) == 1 else None
    line = np.median(present, axis=0) - backdrop
    covers = _soft_coverage(clip, backdrop, line)
    if len(present) < len(sampled) or covers.sum(axis=(1, 2)).min() < MIN_AREA_PX:
        return Reading(background, colour)
    places = np.array([_locate(cover) for cover in covers])
    distances = np.linalg.norm(_smooth(clip[sampled] - backdrop.astype(np.float32)), axis=-1)
    strays = _strays(distances, line)
    fits = [_fit_shapes(covers[f], strays[i], places[f]) for i, f in enumerate(sampled)]
    ious = {shape: float(np.mean([fit[shape].iou for fit in fits])) for shape in SHAPES}
    best, second = sorted(SHAPES, key=ious.__getitem__, reverse=True)[:2]
    away = [float(distance[fit[best].away].max(initial=0)) for distance, fit in zip(distances, fits, strict=True)]
    return Reading(
        background=background,
        colour=colour,
        direction=_direction(places[:, :2]),
        shape=best,
        iou=round(ious[best], 4),
        margin=round(ious[best] - ious[second], 4),
        ghost=round(float(np.mean([fit[best].ghost for fit in fits])), 4),
        ghost_levels=round(max(away), 1),
        found=True,
        off_path_levels=round(_off_path(clip, backdrop, best, sampled, [fit[best].outline for fit in fits]), 1),
    )


def shrink(frames: np.ndarray) -> np.ndarray:
    """Float32 frames with a long side of about 144 px; larger ones are downsampled by area averaging."""
    height, width = frames.shape[1:3]
    scale = LONG_SIDE / max(height, width)
    if scale > 0.8:
        return frames.astype(np.float32)
    size = (round(height * scale), round(width * scale))
    small = (_average(frame.astype(np.float32), size[0]) for frame in frames)
    return np.stack([_average(frame.swapaxes(0, 1), size[1]).swapaxes(0, 1) for frame in small])


def _average(image: np.ndarray, size: int) -> np.ndarray:
    """Downsample the rows; each new row is the mean of the old rows that it covers, weighted by overlap."""
    edges = np.linspace(0, len(image), size + 1)
    whole = np.minimum(edges.astype(int), len(image) - 1)
    part = (edges - whole)[:, None, None].astype(np.float32)
    above = np.concatenate([np.zeros_like(image[:1]), np.cumsum(image, axis=0)])
    return np.diff(above[whole] + part * image[whole], axis=0) * (size / len(image))


def border_median(clip: np.ndarray, rim: int = 2) -> np.ndarray:
    """Median colour of the border of all frames: [frames, height, width, 3]."""
    inner = np.zeros(clip.shape[1:3], dtype=bool)
    inner[rim:-rim, rim:-rim] = True
    return np.median(clip[:, ~inner].reshape(-1, 3), axis=0)


def nearest_name(value: np.ndarray, names: dict[str, tuple[int, int, int]], limit: float = np.inf) -> str | None:
    """The nearest of these colours; None if it is farther than ``limit``, as RGB distance in levels."""
    distances = {name: float(np.linalg.norm(value - np.asarray(rgb))) for name, rgb in names.items()}
    best = min(distances, key=distances.__getitem__)
    return best if distances[best] <= limit else None


def object_colour(frame: np.ndarray, backdrop: np.ndarray) -> np.ndarray | None:
    """Median colour of the pixels that clearly differ from the background; None if there are none."""
    distance = np.linalg.norm(frame - backdrop, axis=-1)
    contrast = float(np.percentile(distance, OBJECT_PERCENTILE))
    if contrast < MIN_CONTRAST:
        return None
    mask = distance > 0.6 * contrast
    interior = mask.copy()
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            interior &= np.roll(mask, shift, axis)
    chosen = interior if interior.sum() >= MIN_AREA_PX / 4 else mask
    return np.median(frame[chosen], axis=0)


def _soft_coverage(clip: np.ndarray, backdrop: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Position of each pixel between background (0) and object (1), with noise near both clipped."""
    noise = max(MIN_NOISE_SHARE, NOISE_LEVELS / float(np.linalg.norm(line)))
    along = (clip - backdrop) @ (line / (line @ line)).astype(np.float32)
    return np.clip((along - noise) / (1 - 2 * noise), 0, 1)


def _smooth(clip: np.ndarray) -> np.ndarray:
    """Mean over 3x3 pixels."""
    height, width = clip.shape[1:3]
    padded = np.pad(clip, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return sum(padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)) / 9


def _off_path(
    clip: np.ndarray, backdrop: np.ndarray, shape: str, sampled: np.ndarray, outlines: list[np.ndarray]
) -> float:
    """``off_path_levels`` of an object with these outlines in the sampled frames."""
    height, width = clip.shape[1:3]
    every = np.arange(len(clip))
    x, y, radius = (np.interp(every, sampled, values) for values in np.transpose(outlines))
    down, right = np.indices((height, width)) + 0.5
    path = np.zeros((height, width), dtype=bool)
    for f in every:
        path |= signed_distance(shape, right - x[f], down - y[f], radius[f]) < PATH_MARGIN_PX
    background = BACKGROUNDS[nearest_name(backdrop, BACKGROUNDS)]
    return float(np.abs(_smooth(clip - np.float32(background)))[:, ~path].max(initial=0))


def _strays(distances: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Visibility of colours other than the background, relative to the contrast of the object."""
    return np.where(distances > NOISE_LEVELS, np.minimum(distances / np.linalg.norm(line), 1), 0)


def _locate(cover: np.ndarray) -> np.ndarray:
    """Centre (x, y) and area of the object: the mass around its densest place."""
    height, width = cover.shape
    sums = np.pad(cover, WINDOW_PX // 2 + 1).cumsum(axis=0).cumsum(axis=1)
    boxes = sums[WINDOW_PX:, WINDOW_PX:] - sums[:-WINDOW_PX, WINDOW_PX:]
    boxes = boxes - sums[WINDOW_PX:, :-WINDOW_PX] + sums[:-WINDOW_PX, :-WINDOW_PX]
    centre = np.array(np.unravel_index(boxes[:height, :width].argmax(), cover.shape))[::-1] + 0.5
    y, x = np.indices(cover.shape) + 0.5
    for _ in range(4):
        near = cover * (np.hypot(x - centre[0], y - centre[1]) < WINDOW_PX)
        centre = np.array([np.sum(x * near), np.sum(y * near)]) / near.sum()
    return np.array([*centre, near.sum()])


def _direction(centres: np.ndarray) -> str | None:
    """Direction of the straight line fitted to the path; None if it is short or slanted."""
    if len(centres) < 2:
        return None
    time = np.arange(len(centres)) - (len(centres) - 1) / 2
    travel = time @ centres / (time @ time) * (len(centres) - 1)
    along = {name: float(travel @ np.array(unit)) for name, unit in DIRECTIONS.items()}
    best = max(along, key=along.__getitem__)
    across = abs(float(travel @ np.array(DIRECTIONS[best])[::-1]))
    return best if along[best] >= max(MIN_TRAVEL_PX, 2 * across) else None


def _fit_shapes(cover: np.ndarray, stray: np.ndarray, place: np.ndarray) -> dict[str, _Fit]:
    """For every shape in one frame, how well its best outline fits."""
    height, width = cover.shape
    fits = {}
    for shape in SHAPES:
        iou, (x, y, radius) = fit_outline(cover, shape, place)
        outline = coverage(shape, (x, y), radius, (width, height))
        away = coverage(shape, (x, y), radius + 3.0, (width, height)) == 0
        ghost = np.sum(stray * away)
        fits[shape] = _Fit(iou, float(ghost / max(outline.sum(), 1.0)), away, np.array([x, y, radius]))
    return fits


def fit_outline(cover: np.ndarray, shape: str, place: np.ndarray) -> tuple[float, np.ndarray]:
    """Best IoU of a soft mask with an ideal outline, and that outline's (x, y, radius).

    Args:
        cover: fraction of each pixel that is object: [height, width], 0..1.
        shape: shape of the outline.
        place: starting point, (x, y, area) in pixels.
    """
    height, width = cover.shape
    total = float(cover.sum())
    start = np.array([*place[:2], np.sqrt(place[2] / UNIT_AREA[shape])])
    # Only the neighbourhood is drawn; ``total`` includes pixels outside of it.
    reach = 1.4 * start[2] + 8
    left, top = (max(0, int(v - reach)) for v in start[:2])
    right, bottom = min(width, int(start[0] + reach) + 1), min(height, int(start[1] + reach) + 1)
    part = cover[top:bottom, left:right]

    known: dict[bytes, float] = {}  # neighbouring steps try the same outlines again

    def overlap(at: np.ndarray) -> float:
        key = at.tobytes()
        if key not in known:
            known[key] = overlap_of(at)
        return known[key]

    def overlap_of(at: np.ndarray) -> float:
        if at[2] < 1:
            return 0.0
        outline = coverage(shape, (at[0] - left, at[1] - top), at[2], (right - left, bottom - top))
        shared = float(np.minimum(part, outline).sum())
        return shared / (total + float(outline.sum()) - shared)

    best, score = start, overlap(start)
    for step in (2.0, 1.0, 0.5, 0.25):
        for _ in range(12):
            tries = [best + step * move for move in MOVES]
            scores = [overlap(at) for at in tries]
            if max(scores) <= score:
                break
            score = max(scores)
            best = tries[scores.index(score)]
    return score, best
