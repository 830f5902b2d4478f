"""The job of both scripts as JSON: weights, request and precision. Does not import the package."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One video to generate.

    Attributes:
        folder: folder of the checkpoint, in diffusers' layout.
        template: prompt template in the pipeline's format: ``template`` and ``crop_start``.
        request: the request, with a value for every field.
        transformer: precision of the transformer; the other components are in float32.
        compile: whether our script compiles the transformer's blocks.
    """

    folder: str
    template: dict[str, Any]
    request: dict[str, Any]
    transformer: str = "float32"
    compile: bool = False

    def save(self, path: Path) -> None:
        """Write it for a child."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Job:
        """Read a file written by :meth:`save`."""
        return cls(**json.loads(path.read_text()))
