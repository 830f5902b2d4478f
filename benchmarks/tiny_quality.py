"""Measures how often a built-in checkpoint follows the prompt, and the picture, judged from its mp4 files.

Every run of the plan requests all 216 combinations in varied wording, each with a different seed, and judges the files
by their pixels. A model that takes an image gets a new picture for each video; the video should keep what the picture
shows and move it where the prompt says. A refused generation counts as wrong in every respect. Videos are generated
through the public API only; ``shape_reading`` is the judge.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quality_records import Generate, Read, Record, generate_with, measure
from quality_sheet import contact_sheet
from quality_tables import colour_table, failures, outlines, picture_targets, summary
from quality_tasks import Run, Task, choose_runs, make_picture_tasks, make_tasks
from shape_reading import MIN_IOU


def run_plan(
    options: argparse.Namespace, generate: Generate, read: Read, folder: Path, takes_image: bool = False
) -> list[Record]:
    """Run the plan; after each run, print its tables and write all results so far."""
    done: list[Record] = []
    for run in choose_runs(options.steps, options.frames):
        start = time.monotonic()
        records = list(measure(_tasks(run, options, takes_image), folder, generate, read, options.keep is not None))
        seconds = time.monotonic() - start
        print(f"\n== {run}: {len(records)} videos, {seconds:.0f} s ==\n")
        tables = [summary(records), outlines(records), colour_table(records), failures(records)]
        if takes_image:
            tables.insert(1, picture_targets(records))
        print(*tables, sep="\n\n", flush=True)
        if options.sheet and not done:
            contact_sheet(records).save(options.sheet)
        done += [replace(r, stills=None) for r in records]
        if options.output:
            settings = {"model": options.model, "seed": options.seed, "limit": options.limit, "min_iou": MIN_IOU}
            options.output.write_text(json.dumps(settings | {"records": [r.as_json() for r in done]}) + "\n")
    return done


def _tasks(run: Run, options: argparse.Namespace, takes_image: bool) -> list[Task]:
    if takes_image:
        return make_picture_tasks(run, options.seed, options.limit, options.contradict)
    return make_tasks(run, options.seed, options.limit, options.partial)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny", help="a text-to-video or image-to-video model of the same world")
    parser.add_argument("--steps", type=int, nargs="+", help="only these numbers of steps")
    parser.add_argument("--frames", type=int, nargs="+", help="only these lengths")
    parser.add_argument("--limit", type=int, help="number of videos per run, chosen at random")
    wording = parser.add_mutually_exclusive_group()
    wording.add_argument(
        "--partial", action="store_true", help="text to video: prompts that leave out one to four of the words"
    )
    wording.add_argument(
        "--contradict", action="store_true", help="image to video: prompts that contradict what the picture shows"
    )
    parser.add_argument("--seed", type=int, default=2024, help="seed for wording, pictures and the videos' seeds")
    parser.add_argument("--output", type=Path, help="JSON file for all results")
    parser.add_argument("--sheet", type=Path, help="PNG file for stills of the first run")
    parser.add_argument("--keep", type=Path, help="folder in which to keep the videos")
    return parser.parse_args(arguments)


def refuse_foreign_wording(options: argparse.Namespace, takes_image: bool) -> None:
    """End with a message if the model cannot be asked in this wording."""
    if options.partial and takes_image:
        raise SystemExit(
            f"--partial: {options.model} begins with a picture; leave it out, or use a text-to-video model"
        )
    if options.contradict and not takes_image:
        raise SystemExit(
            f"--contradict: {options.model} takes no picture; leave it out, or use an image-to-video model"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    from hunyuan_local import get_backend
    from hunyuan_local.video import read_frames

    options = parse(arguments)
    backend = get_backend("local", model=options.model)
    takes_image = backend.capabilities.takes_image
    refuse_foreign_wording(options, takes_image)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        run_plan(options, generate_with(backend), read_frames, options.keep or Path(temporary), takes_image)


if __name__ == "__main__":
    main()
