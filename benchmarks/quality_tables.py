"""Tables of the quality benchmark, for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from quality_records import FIRST_FRAME, MIN_FIRST_FRAME_DB, SAID, WHOLE, Record
from quality_tasks import WORDS
from shape_reading import MAX_OFF_PATH_LEVELS
from tiny.world import BACKGROUNDS, COLOURS, is_held_out

WIDTH = 80  # columns of the printed text
WORST = 5
# What an image-to-video model should reach, in percent; the mean PSNR of the first frame should reach its limit.
PICTURE_TARGETS = {"direction": 98.0, "colour": 98.0, "shape": 95.0, "background": 98.0}


def summary(records: Sequence[Record]) -> str:
    """Percent correct for all, the trained and the held-out combinations, and for each kind of prompt.

    A word counts in the videos whose prompt, or picture, says it.
    """
    parts = [part for part in (*WORDS, WHOLE, SAID, FIRST_FRAME) if any(part in r.right for r in records)]
    # Values such as 100.0 need five columns.
    titles = {part: f"{part:>5}" for part in parts} | {"all": "all four" if len(parts) == len(WORDS) else "  all"}
    pictures = FIRST_FRAME in parts
    lines = [f"{'':10}{'n':>4}" + "".join(f"  {title}" for title in titles.values()) + "   dB" * pictures + "  IoU"]
    for name, chosen in _groups(records).items():
        cells = "".join(f"{_share(chosen, part):>{len(title) + 2}}" for part, title in titles.items())
        if pictures:
            cells += f"{_mean_db(chosen):5.1f}"
        lines.append(f"{name:10}{len(chosen):4}{cells}{np.mean([r.iou for r in chosen]):5.2f}")
    return "\n".join(lines)


def _groups(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups = {"all": list(records)}
    groups["trained"] = [r for r in records if not is_held_out(r.task.combination)]
    groups["held out"] = [r for r in records if is_held_out(r.task.combination)]
    wordings = sorted({r.task.wording for r in records})
    if len(wordings) > 1:
        groups |= {wording: [r for r in records if r.task.wording == wording] for wording in wordings}
    return {name: chosen for name, chosen in groups.items() if chosen}


def outlines(records: Sequence[Record]) -> str:
    """Mean IoU, IoU below which one video in twenty is, the strongest ghost, and the stray colour off the path."""
    ious = [r.iou for r in records]
    readings = [r.reading for r in records if r.reading]
    off_path = [reading.off_path_levels for reading in readings]
    above = sum(levels > MAX_OFF_PATH_LEVELS for levels in off_path)
    return (
        f"outlines: mean IoU {np.mean(ious):.3f}, worst twentieth below {np.percentile(ious, 5):.3f}; "
        f"strongest ghost {max((r.ghost_levels for r in readings), default=0):.0f} levels\n"
        f"off the path: at most {max(off_path, default=0):.0f} levels from the background; "
        f"{above} of {len(readings)} videos above {MAX_OFF_PATH_LEVELS:.0f}"
    )


def picture_targets(records: Sequence[Record]) -> str:
    """What image to video reaches of its targets, and the first frames' PSNR."""
    reached = [(part, _percent(records, part), least, "%") for part, least in PICTURE_TARGETS.items()]
    reached.append(("first frame", _mean_db(records), MIN_FIRST_FRAME_DB, "dB"))
    said = [
        f"{part} {value:.1f} of {least:.0f} {unit}{'' if value >= least else ' (missed)'}"
        for part, value, least, unit in reached
    ]
    worst = min((r.psnr_db for r in records if r.psnr_db is not None), default=0.0)
    return "\n".join(textwrap.wrap(f"targets: {', '.join(said)}; worst first frame {worst:.1f} dB", WIDTH))


def _mean_db(records: Sequence[Record]) -> float:
    """Mean PSNR of the first frames of the videos that there are; 0 if there are none."""
    decibels = [r.psnr_db for r in records if r.psnr_db is not None]
    return float(np.mean(decibels)) if decibels else 0.0


def colour_table(records: Sequence[Record]) -> str:
    """Percent with everything correct, and with the shape correct, by colour and background."""
    lines = [f"{'all / shape (n)':15}" + "".join(f"{background:>21}" for background in BACKGROUNDS)]
    for colour in COLOURS:
        cells = []
        for background in BACKGROUNDS:
            cells.append(_cell([r for r in records if _colours(r) == (colour, background)]))
        lines.append(f"{colour:15}" + "".join(f"{cell:>21}" for cell in cells))
    return "\n".join(lines)


def _colours(record: Record) -> tuple[str, str]:
    return record.task.combination.colour, record.task.combination.background


def _cell(records: Sequence[Record]) -> str:
    if not records:
        return "-"
    return f"{_share(records, 'all', 0)} / {_share(records, 'shape', 0)} ({len(records)})"


def _share(records: Sequence[Record], part: str, decimals: int = 1) -> str:
    percent = _percent(records, part)
    return "-" if np.isnan(percent) else f"{percent:.{decimals}f}"


def _percent(records: Sequence[Record], part: str) -> float:
    """Percent of the videos that have this right; a word counts only where it was said. NaN if it never was."""
    right = [r.right[part] for r in records if part not in WORDS or part in r.task.said]
    return 100 * float(np.mean(right)) if right else float("nan")


def failures(records: Sequence[Record], count: int = WORST) -> str:
    """The worst videos, with everything needed to generate them again."""
    wrong = sorted((r for r in records if not r.right["all"]), key=lambda r: (sum(r.right.values()), r.iou))
    lines = [f"{len(wrong)} of {len(records)} wrong" + (f"; the worst {count}:" if len(wrong) > count else "")]
    for record in wrong[:count]:
        width, height = record.task.size
        lines += textwrap.wrap(f"- seed {record.task.seed}, {width}x{height}: {record.task.prompt!r}", WIDTH)
        lines += textwrap.wrap(f"  {_verdict(record)}", WIDTH, subsequent_indent="  ")
        lines += textwrap.wrap(_shown_in_picture(record), WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines)


def _verdict(record: Record) -> str:
    if record.reading is None:
        return record.error or "no video"
    shown = {word: getattr(record.reading, word) for word in WORDS if not record.right[word]}
    if not record.right.get(FIRST_FRAME, True):
        shown["first frame"] = f"{record.psnr_db:.1f} dB"
    said = ", ".join(f"{word} {value}" for word, value in shown.items())
    return f"wrong: {said}; IoU {record.iou:.2f}, ghost {record.reading.ghost:.2f}"


def _shown_in_picture(record: Record) -> str:
    scene = record.task.scene
    if scene is None:
        return ""
    shown, (x, y) = record.task.combination, scene.centre(0)
    return (
        f"picture: {shown.colour} {shown.shape} on {shown.background}, should go {shown.direction}; "
        f"radius {scene.radius:.1f} px at ({x:.1f}, {y:.1f})"
    )
