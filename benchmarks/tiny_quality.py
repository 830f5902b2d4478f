"""Measures how often the built-in checkpoint follows the prompt, judged from its mp4 files.

Every run of the plan requests all 216 combinations in varied wording, each with a different seed, and judges the files
by their pixels. A refused generation counts as wrong in every respect. Videos are generated through the public API
only; ``shape_reading`` is the judge.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from shape_reading import MIN_IOU, Reading, judge, read_clip
from tiny.captions import PARTS, varied, without_some
from tiny.world import BACKGROUNDS, COLOURS, LANDSCAPE, PORTRAIT, SHAPES, Combination, combinations, is_held_out

from hunyuan_local import GenerationContext, GenerationRequest
from hunyuan_local.backends.base import Backend
from hunyuan_local.errors import InvalidOutputError, VideoError

ORIENTATIONS = {"landscape": (LANDSCAPE,), "portrait": (PORTRAIT,), "alternating": (LANDSCAPE, PORTRAIT)}
WORDS = ("colour", "direction", "background", "shape")
SHEET_FRAMES = (0, 5, 10, 16)
WIDTH = 80  # columns of the printed text
WORST = 5


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
    """One requested video."""

    run: Run
    combination: Combination
    prompt: str
    size: tuple[int, int]
    seed: int
    said: tuple[str, ...] = WORDS


@dataclass(frozen=True)
class Record:
    """The outcome of a task: a reading or an error."""

    task: Task
    reading: Reading | None
    error: str | None = None
    stills: np.ndarray | None = None

    @property
    def right(self) -> dict[str, bool]:
        words = judge(self.reading, self.task.combination, self.task.said)
        return words | {"all": all(words.values())}

    @property
    def iou(self) -> float:
        return self.reading.iou if self.reading else 0.0

    def as_json(self) -> dict:
        made = {"task": asdict(self.task), "reading": asdict(self.reading) if self.reading else None}
        return made | {"error": self.error, "right": self.right, "held_out": is_held_out(self.task.combination)}


Generate = Callable[[Task, Path], Path]
Read = Callable[[Path], Iterable[np.ndarray]]


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
    """The tasks of a run, shuffled, so that the first ``limit`` are a fair sample.

    With ``partial`` every prompt leaves out one to four of the words.
    """
    sizes = ORIENTATIONS[run.orientation]
    rng = np.random.default_rng([seed, run.steps, run.frames, list(ORIENTATIONS).index(run.orientation)])
    every = combinations()
    tasks = []
    for rank, index in enumerate(rng.permutation(len(every))[:limit]):
        kept = without_some(rng) if partial else PARTS
        prompt = varied(every[index], rng, kept)
        said = tuple(word for word in WORDS if word in kept)
        tasks.append(Task(run, every[index], prompt, sizes[rank % len(sizes)], int(rng.integers(2**32)), said))
    return tasks


def measure(tasks: Sequence[Task], folder: Path, generate: Generate, read: Read, keep: bool) -> Iterator[Record]:
    """Generate, decode and judge one video after another."""
    for number, task in enumerate(tasks):
        run = task.run
        path = folder / f"{run.steps}-steps-{run.frames}-frames-{run.orientation}-{number:03}-{task.seed}.mp4"
        try:
            path = generate(task, path)
            frames = np.stack(list(read(path)))
            wanted = (run.frames, task.size[1], task.size[0], 3)
            if frames.shape != wanted:
                raise VideoError(f"{path}: frames {frames.shape} instead of {wanted}")
        except (InvalidOutputError, VideoError) as error:
            yield Record(task, None, f"{type(error).__name__}: {error}")
            continue
        stills = frames[[min(f, len(frames) - 1) for f in SHEET_FRAMES]]
        if not keep:
            path.unlink()
        yield Record(task, read_clip(frames), stills=stills)


def summary(records: Sequence[Record]) -> str:
    """Percent correct for all, the trained and the held-out combinations."""
    lines = [f"{'':10}{'n':>5}" + "".join(f"{title:>12}" for title in (*WORDS, "all four")) + f"{'IoU':>5}"]
    groups = {"all": (True, False), "trained": (False,), "held out": (True,)}
    for name, kinds in groups.items():
        chosen = [r for r in records if is_held_out(r.task.combination) in kinds]
        if chosen:
            cells = "".join(f"{_percent(chosen, word):12.1f}" for word in (*WORDS, "all"))
            lines.append(f"{name:10}{len(chosen):5}{cells}{np.mean([r.iou for r in chosen]):5.2f}")
    return "\n".join(lines)


def outlines(records: Sequence[Record]) -> str:
    """Mean IoU, IoU below which one video in twenty is, and the strongest ghost in levels of 255."""
    ious = [r.iou for r in records]
    ghosts = [r.reading.ghost_levels for r in records if r.reading]
    return (
        f"outlines: mean IoU {np.mean(ious):.3f}, worst twentieth below {np.percentile(ious, 5):.3f}; "
        f"strongest ghost {max(ghosts, default=0):.0f} levels"
    )


def colour_table(records: Sequence[Record]) -> str:
    """Percent with all four words correct, and with the shape correct, by colour and background."""
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
    return f"{_percent(records, 'all'):.0f} / {_percent(records, 'shape'):.0f} ({len(records)})"


def _percent(records: Sequence[Record], word: str) -> float:
    return 100 * float(np.mean([r.right[word] for r in records]))


def failures(records: Sequence[Record], count: int = WORST) -> str:
    """The worst videos, with everything needed to generate them again."""
    wrong = sorted((r for r in records if not r.right["all"]), key=lambda r: (sum(r.right.values()), r.iou))
    lines = [f"{len(wrong)} of {len(records)} wrong" + (f"; the worst {count}:" if len(wrong) > count else "")]
    for record in wrong[:count]:
        width, height = record.task.size
        lines += textwrap.wrap(f"- seed {record.task.seed}, {width}x{height}: {record.task.prompt!r}", WIDTH)
        lines += textwrap.wrap(f"  {_verdict(record)}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def _verdict(record: Record) -> str:
    if record.reading is None:
        return record.error or "no video"
    shown = {word: getattr(record.reading, word) for word in WORDS if not record.right[word]}
    said = ", ".join(f"{word} {value}" for word, value in shown.items())
    return f"wrong: {said}; IoU {record.iou:.2f}, ghost {record.reading.ghost:.2f}"


def contact_sheet(records: Sequence[Record]) -> Image.Image:
    """The first record of each colour (6 rows) and shape (3 columns), with its caption above."""
    first = {}
    for record in records:
        first.setdefault((record.task.combination.colour, record.task.combination.shape), record)
    width = max((r.task.size[0] for r in first.values()), default=LANDSCAPE[0])
    height = max((r.task.size[1] for r in first.values()), default=LANDSCAPE[1])
    gap, caption, font = 4, 44, ImageFont.load_default(size=15)
    cell = (len(SHEET_FRAMES) * (width + gap) + 20, caption + height + 14)
    sheet = Image.new("RGB", (cell[0] * len(SHAPES) + 20, cell[1] * len(COLOURS) + 10), "white")
    draw = ImageDraw.Draw(sheet)
    for (row, colour), (column, shape) in product(enumerate(COLOURS), enumerate(SHAPES)):
        record = first.get((colour, shape))
        if record is None:
            continue
        left, top = 20 + column * cell[0], 10 + row * cell[1]
        note = " [not in training]" if is_held_out(record.task.combination) else ""
        lines = _wrap(record.task.prompt + note, font, cell[0] - 24)
        draw.multiline_text((left, top), "\n".join(lines[:2]), fill="black", font=font, spacing=3)
        if record.stills is None:
            draw.text((left, top + caption), "no video", fill="red", font=font)
            continue
        for number, still in enumerate(record.stills):
            sheet.paste(Image.fromarray(still), (left + number * (width + gap), top + caption))
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return lines


def generate_with(backend: Backend) -> Generate:
    """Generates with a backend that loads the model once."""

    def generate(task: Task, path: Path) -> Path:
        asked = {"prompt": task.prompt, "width": task.size[0], "height": task.size[1], "seed": task.seed}
        request = GenerationRequest(**asked, num_frames=task.run.frames, num_inference_steps=task.run.steps)
        return backend.generate(request, GenerationContext(output=path, overwrite=True)).path

    return generate


def run_plan(options: argparse.Namespace, generate: Generate, read: Read, folder: Path) -> list[Record]:
    """Run the plan; after each run, print its tables and write all results so far."""
    done: list[Record] = []
    for run in choose_runs(options.steps, options.frames):
        start = time.monotonic()
        tasks = make_tasks(run, options.seed, options.limit, options.partial)
        records = list(measure(tasks, folder, generate, read, options.keep is not None))
        seconds = time.monotonic() - start
        print(f"\n== {run}: {len(records)} videos, {seconds:.0f} s ==\n")
        print(summary(records), outlines(records), colour_table(records), failures(records), sep="\n\n", flush=True)
        if options.sheet and not done:
            contact_sheet(records).save(options.sheet)
        done += [replace(r, stills=None) for r in records]
        if options.output:
            settings = {"model": options.model, "seed": options.seed, "limit": options.limit, "min_iou": MIN_IOU}
            options.output.write_text(json.dumps(settings | {"records": [r.as_json() for r in done]}) + "\n")
    return done


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, nargs="+", help="only these numbers of steps")
    parser.add_argument("--frames", type=int, nargs="+", help="only these lengths")
    parser.add_argument("--limit", type=int, help="number of videos per run, chosen at random")
    parser.add_argument("--partial", action="store_true", help="prompts that leave out one to four of the words")
    parser.add_argument("--seed", type=int, default=2024, help="seed for the wording and the videos' seeds")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    parser.add_argument("--sheet", type=Path, help="PNG file for stills of the first run")
    parser.add_argument("--keep", type=Path, help="folder in which to keep the videos")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    from hunyuan_local import get_backend
    from hunyuan_local.video import read_frames

    options = parse(arguments)
    generate = generate_with(get_backend("local", model=options.model))
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        run_plan(options, generate, read_frames, options.keep or Path(temporary))


if __name__ == "__main__":
    main()
