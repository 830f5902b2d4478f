"""The state of one unfinished video: latents, number of finished steps and the generator's state.

Kept in memory after every step and, if there is a folder, saved to disk periodically for a later run of the same
request. A resumed run gives the same frames as an uninterrupted one, because the sampler (Euler) has no state.
Knows nothing about how the state is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..durable import replacing
from ..errors import ConfigError, HunyuanLocalError

UNSAVED_S = 30.0  # most work a crash may cost, in seconds, plus the rest of the step in which it is reached


@dataclass(frozen=True)
class SavedState:
    """Latents float32 [1, 16, (frames-1)/4+1, height/8, width/8] after ``step`` steps, on the CPU."""

    step: int
    latents: torch.Tensor
    generator: torch.Tensor


class Checkpoint:
    """Stores the state of one request in memory and in one file, ``latents-<key>.safetensors``.

    Args:
        folder: created if missing; None keeps the state only in memory.
        key: identifies the request.
        every: save after this many steps. None saves after the first step that ends ``UNSAVED_S`` seconds or more
            after the last save (or the start). The last step is always saved.
        clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        folder: Path | None = None,
        key: str = "",
        every: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.path = None if folder is None else folder / f"latents-{key}.safetensors"
        self.every = every
        self.facts: dict[str, str] = {}
        self._clock = clock
        self._latest: SavedState | None = None
        self._saved_step = 0
        self._saved_at = clock()

    def seed(self) -> int | None:
        """The seed of the saved state, or None if there is no readable one."""
        metadata = self._metadata()
        return None if metadata is None else metadata["seed"]

    def saved_facts(self) -> dict[str, str]:
        """The ``facts`` of the saved state; empty if there is no readable one."""
        metadata = self._metadata()
        return {} if metadata is None else metadata["facts"]

    def load(self) -> tuple[SavedState | None, str | None]:
        """The latest state, from this run or from a file with the same ``facts``; or why the file is unusable."""
        if self._latest is not None or self.path is None or not self.path.exists():
            return self._latest, None
        metadata = self._metadata()
        if metadata is None:
            return None, f"{self.path} is damaged; starting from the first step"
        saved = metadata["facts"]
        if changed := [name for name, value in self.facts.items() if saved.get(name) != value]:
            what = ", ".join(changed)
            return None, f"{self.path} does not match this request (different: {what}); starting from the first step"
        with safe_open(self.path, "pt") as file:
            return SavedState(metadata["step"], file.get_tensor("latents"), file.get_tensor("generator")), None

    def keep(self, state: SavedState, total: int, seed: int) -> None:
        """Keep this state in memory and save it if due; the disk always holds one complete state.

        Raises:
            ConfigError: the folder cannot be written.
        """
        self._latest = state
        if self._is_due(state.step, total):
            self._save(seed)

    def _is_due(self, step: int, total: int) -> bool:
        if step == total:  # most failures come after the last step, in decoding or writing
            return True
        if self.every is not None:
            return step % self.every == 0
        return self._clock() - self._saved_at >= UNSAVED_S

    def _save(self, seed: int) -> None:
        """Save the latest state, if there is a folder and this step is not saved yet."""
        state = self._latest
        if self.path is None or state is None or state.step == self._saved_step:
            return
        metadata = {"step": str(state.step), "seed": str(seed), "facts": json.dumps(self.facts)}
        tensors = {"latents": state.latents.contiguous(), "generator": state.generator}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as partial:
                save_file(tensors, partial, metadata)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{self.path.parent}: the state of the video cannot be saved: {error}; check the disk, or choose "
                "another --checkpoint-dir"
            ) from error
        self._saved_step, self._saved_at = state.step, self._clock()

    def rescue(self, seed: int, error: BaseException, note: Callable[[str], None]) -> None:
        """Save the latest state when ``error`` ends the video; if saving fails too, add the reason to ``error``.

        Args:
            note: gets the reason if the error is not one of this package's and cannot carry it.
        """
        try:
            self._save(seed)
        except ConfigError as problem:
            if not isinstance(error, HunyuanLocalError):
                note(str(problem))
            elif str(problem) != str(error):  # the error may be this same failure, raised a moment before
                error.hint = str(problem)

    def delete(self) -> None:
        """Forget the state of a finished video; ignores a file that cannot be deleted, since the video exists."""
        self._latest = None
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _metadata(self) -> dict[str, Any] | None:
        """``step``, ``seed`` and ``facts`` of the file; None if it is missing or damaged."""
        if self.path is None:
            return None
        try:
            with safe_open(self.path, "pt") as file:
                found = file.metadata() or {}
                if not {"latents", "generator"} <= set(file.keys()):
                    return None
            facts = dict(json.loads(found["facts"]))
            return {"step": int(found["step"]), "seed": int(found["seed"]), "facts": facts}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None


def key_of(*parts: str) -> str:
    """A short hash that identifies a request."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
