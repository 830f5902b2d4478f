"""What both scripts are told: weights, request and precision, as JSON. Imports nothing of the package."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One video to be made.

    Attributes:
        folder: of the checkpoint, in diffusers' layout.
        template: the prompt template, as the pipeline takes it: ``template`` and ``crop_start``.
        request: every field of the request a value.
        transformer: its precision; the other components are in float32.
        compile: our script compiles the transformer's blocks.
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
        """Read what :meth:`save` has written."""
        return cls(**json.loads(path.read_text()))
