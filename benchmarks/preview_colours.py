"""Measures how often the preview at half of the steps shows the right colour of the shape.

Requests all 216 combinations through the public API, reads the preview that the backend writes at half of the steps,
and ends each generation there. The colour is the one of the world's six that is nearest to the preview's pixels at the
shape, however far: olive counts as red. How many are also near to the colour is printed as well. A preview without a
visible shape is wrong.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from quality_records import request_of
from quality_tasks import Run, Task, make_picture_tasks, make_tasks
from shape_reading import MAX_COLOUR_DISTANCE, border_median, nearest_name, object_colour
from tiny.world import BACKGROUNDS, COLOURS, is_held_out

from hunyuan_local import GenerationContext
from hunyuan_local.backends.base import Backend
from hunyuan_local.errors import GenerationCancelledError
from hunyuan_local.schema import Progress

MIN_STEPS = 4  # the first step has no preview, so half of the steps must be two at least

Preview = Callable[[Task, Path], np.ndarray]


@dataclass(frozen=True)
class Seen:
    """The colour that a preview shows, and its RGB distance from the right one; None if no shape is visible."""

    task: Task
    colour: str | None
    levels: float | None = None

    @property
    def right(self) -> bool:
        return self.colour == self.task.combination.colour

    @property
    def near(self) -> bool:
        """Whether the colour is right and could not be taken for any other."""
        return self.right and self.levels is not None and self.levels <= MAX_COLOUR_DISTANCE

    def as_json(self) -> dict:
        return {"task": asdict(self.task), "colour": self.colour, "levels": self.levels, "right": self.right}


def see(task: Task, preview: np.ndarray) -> Seen:
    """The world's colour nearest to that of the shape in a preview: uint8 RGB, frames side by side."""
    strip = preview.astype(np.float32)
    colour = object_colour(strip, border_median(strip[None]))
    if colour is None:
        return Seen(task, None)
    levels = float(np.linalg.norm(colour - COLOURS[task.combination.colour]))
    return Seen(task, nearest_name(colour, COLOURS), round(levels, 1))


def preview_with(backend: Backend) -> Preview:
    """Generates with a backend up to half of the steps, and returns the preview of that step."""

    def preview(task: Task, path: Path) -> np.ndarray:
        half = task.run.steps // 2
        read: list[np.ndarray] = []

        def watch(progress: Progress) -> None:
            if progress.stage == "denoise" and progress.step == half and progress.preview is not None:
                with Image.open(progress.preview) as picture:
                    read.append(np.asarray(picture.convert("RGB")))
                context.cancel.set()

        context = GenerationContext(output=path, overwrite=True, on_progress=watch, preview_every=half)
        try:
            backend.generate(request_of(task), context)
        except GenerationCancelledError:
            return read[0]
        raise SystemExit(
            f"--model: the preview at step {half} of {task.run.steps} is missing; use a model with latent_preview"
        )

    return preview


def measure(tasks: Sequence[Task], folder: Path, preview: Preview) -> Iterator[Seen]:
    """Read one preview after another."""
    for task in tasks:
        yield see(task, preview(task, folder / "preview.mp4"))


def table(seen: Sequence[Seen]) -> str:
    """Percent of the previews whose colour is right, by colour and background, and what the wrong ones show."""
    lines = [f"{'right, % (n)':13}" + "".join(f"{background:>12}" for background in BACKGROUNDS) + "  wrong ones show"]
    for colour in COLOURS:
        of_colour = [s for s in seen if s.task.combination.colour == colour]
        cells = [_cell([s for s in of_colour if s.task.combination.background == name]) for name in BACKGROUNDS]
        wrong = Counter(s.colour or "nothing" for s in of_colour if not s.right)
        shown = ", ".join(f"{name} {count}" for name, count in wrong.most_common(3))
        lines.append(f"{colour:13}" + "".join(f"{cell:>12}" for cell in cells) + f"  {shown}".rstrip())
    held_out = [s for s in seen if is_held_out(s.task.combination)]
    near = 100 * np.mean([s.near for s in seen])
    lines.append(f"\nright: {_cell(seen)}; held out of training: {_cell(held_out)}")
    lines.append(f"right and within {MAX_COLOUR_DISTANCE:.0f} levels of the colour: {near:.1f}")
    return "\n".join(lines)


def _cell(seen: Sequence[Seen]) -> str:
    return f"{100 * np.mean([s.right for s in seen]):.1f} ({len(seen)})" if seen else "-"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="a text-to-video or image-to-video model of the same world")
    parser.add_argument("--steps", type=int, default=8, help="denoising steps, at least 4")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--limit", type=int, help="number of previews, chosen at random")
    parser.add_argument("--seed", type=int, default=2024, help="seed for wording, pictures and the videos' seeds")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    options = parser.parse_args(arguments)
    if options.steps < MIN_STEPS:
        parser.error(f"--steps {options.steps}: must be at least {MIN_STEPS}, because the first step has no preview")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    from hunyuan_local import get_backend

    options = parse(arguments)
    backend = get_backend("local", model=options.model)
    run = Run(options.steps, options.frames, "alternating")
    make = make_picture_tasks if backend.capabilities.takes_image else make_tasks
    with tempfile.TemporaryDirectory() as folder:
        seen = list(measure(make(run, options.seed, options.limit), Path(folder), preview_with(backend)))
    print(f"{options.model}, preview at step {options.steps // 2} of {options.steps}, {options.frames} frames\n")
    print(table(seen))
    if options.output:
        settings = {"model": options.model, "seed": options.seed, "steps": options.steps, "frames": options.frames}
        options.output.write_text(json.dumps(settings | {"previews": [s.as_json() for s in seen]}) + "\n")


if __name__ == "__main__":
    main()
