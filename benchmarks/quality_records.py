"""The outcome of each task of the quality benchmark: generates a video, reads its file, and judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from quality_tasks import WORDS, Task
from shape_reading import MIN_IOU, Reading, judge, read_clip
from tiny.world import is_held_out

from hunyuan_local import GenerationContext, GenerationRequest
from hunyuan_local.backends.base import Backend
from hunyuan_local.errors import InvalidOutputError, VideoError

SHEET_FRAMES = (0, 5, 10, 16)
# A first frame this close to the picture counts as kept. The mp4 alone takes up to 33 dB of a yellow shape on navy.
MIN_FIRST_FRAME_DB = 30.0
SAME_SQUARES = 1e-5  # mean squared difference that counts as equal: 98 dB
FIRST_FRAME, WHOLE, SAID = "1st frame", "whole", "said"

Generate = Callable[[Task, Path], Path]
Read = Callable[[Path], Iterable[np.ndarray]]


@dataclass(frozen=True)
class Record:
    """The outcome of a task: a reading or an error.

    Attributes:
        psnr_db: PSNR of the first frame to the picture; None without a picture or without a video.
    """

    task: Task
    reading: Reading | None
    error: str | None = None
    stills: np.ndarray | None = None
    psnr_db: float | None = None

    @property
    def right(self) -> dict[str, bool]:
        """What the video has right: the words; with a picture, whether the first frame keeps it; and all of them.

        If the prompt leaves words out, also whether the video shows a whole shape of any kind, and whether it shows one
        with everything that the prompt says.
        """
        parts = judge(self.reading, self.task.combination, self.task.said)
        if len(self.task.said) < len(WORDS):
            parts[WHOLE] = self.iou >= MIN_IOU
            parts[SAID] = parts[WHOLE] and all(parts[word] for word in self.task.said)
        if self.task.scene is not None:
            parts[FIRST_FRAME] = self.psnr_db is not None and self.psnr_db >= MIN_FIRST_FRAME_DB
        return parts | {"all": all(parts.values())}

    @property
    def iou(self) -> float:
        return self.reading.iou if self.reading else 0.0

    def as_json(self) -> dict:
        made = {"task": asdict(self.task), "reading": asdict(self.reading) if self.reading else None}
        made |= {"error": self.error, "right": self.right, "held_out": is_held_out(self.task.combination)}
        return made if self.task.scene is None else made | {"first_frame_psnr_db": self.psnr_db}


def request_of(task: Task) -> GenerationRequest:
    """The request for a task's video."""
    asked = {"prompt": task.prompt, "width": task.size[0], "height": task.size[1], "seed": task.seed}
    asked |= {"num_frames": task.run.frames, "num_inference_steps": task.run.steps}
    picture = task.picture
    return GenerationRequest(**asked, image=None if picture is None else Image.fromarray(picture))


def generate_with(backend: Backend) -> Generate:
    """Generates with a backend that loads the model once."""

    def generate(task: Task, path: Path) -> Path:
        return backend.generate(request_of(task), GenerationContext(output=path, overwrite=True)).path

    return generate


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
        picture = task.picture
        psnr_db = None if picture is None else psnr(frames[0], picture)
        if not keep:
            path.unlink()
        yield Record(task, read_clip(frames), stills=stills, psnr_db=psnr_db)


def psnr(frame: np.ndarray, picture: np.ndarray) -> float:
    """PSNR in dB of two uint8 pictures of the same size; 98 at most."""
    squares = np.square(frame.astype(np.float64) - picture).mean()
    return round(float(10 * np.log10(255**2 / max(squares, SAME_SQUARES))), 2)
