"""What the planner predicts for a mode at a size. Reads only configs, and does not need torch."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hunyuan_local.config import ModelConfig, load_model_config
from hunyuan_local.config.tiling import TILED, UNTILED, Tiling
from hunyuan_local.errors import ConfigError
from hunyuan_local.planner import Machine, Plan, plan
from hunyuan_local.planner.cards import recognise
from hunyuan_local.planner.checkpoint import COMPONENTS, read_architecture
from hunyuan_local.planner.encoded_lengths import LLAMA_TOKENS
from hunyuan_local.planner.memory import forecast
from hunyuan_local.planner.modes import DTYPES, all_modes
from hunyuan_local.planner.plan import weigh
from hunyuan_local.planner.setup import Setup, Shape
from hunyuan_local.planner.time_estimate import estimate
from hunyuan_local.schema import SIZE_MULTIPLE, TEMPORAL_COMPRESSION, GenerationRequest

TIMES = ("encode", "step", "decode")


class VideoSize(NamedTuple):
    """Width, height and frames of a video."""

    width: int
    height: int
    num_frames: int

    def __str__(self) -> str:
        return "x".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> VideoSize:
        """Parse a size such as ``512x320x61``.

        Raises:
            ConfigError: the text is not three numbers.
            InvalidRequestError: the model does not support the size.
        """
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
        if match is None:
            raise ConfigError(f"size={text!r}: must be WIDTHxHEIGHTxFRAMES, such as 512x320x61")
        size = cls(*map(int, match.groups()))
        size.request()
        return size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the tokens: one for each 16x16 pixels and four frames."""
        frames = (self.num_frames - 1) // TEMPORAL_COMPRESSION + 1
        return frames, self.height // SIZE_MULTIPLE, self.width // SIZE_MULTIPLE

    @property
    def tokens(self) -> int:
        """Tokens per attention layer: those of the video, plus 256 for the text."""
        return math.prod(self.grid) + LLAMA_TOKENS

    def request(self, **fields: Any) -> GenerationRequest:
        """A request of this size; without fields it has the model's steps, so that plans are those of a real video.

        Raises:
            InvalidRequestError: the model does not support the size.
        """
        return GenerationRequest(**({"prompt": "any"} | self._asdict() | fields))


def read_configs(path: Path) -> dict[str, dict[str, Any]]:
    """The config.json of each component, from one JSON file or from a checkpoint's folder."""
    if path.is_dir():
        return {name: json.loads((path / name / "config.json").read_text()) for name in COMPONENTS}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: dict(content[name]) for name in COMPONENTS}


def machine_of(card: dict[str, Any]) -> Machine:
    """The planner's description of the machine, with the GPU memory that other programs leave free."""
    gpu, libraries = card["gpu"], frozenset(card["libraries"])
    spec = None
    if gpu is not None:
        vendor = "amd" if gpu.get("rocm") else "nvidia"
        spec = recognise(gpu["name"], gpu["memory_bytes"], tuple(gpu["compute_capability"]), vendor)
    return Machine(card["available_gpu_bytes"], card["host_memory_bytes"], spec, libraries)


def file_name(card: dict[str, Any]) -> str:
    """File name from the GPU's name in lower case with dashes, such as ``nvidia-h100-80gb-hbm3.json``."""
    title = f"cpu {card['cpu']['model']}" if card["gpu"] is None else card["gpu"]["name"]
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".json"


def model_config(folder: Path) -> ModelConfig:
    """The 13 B model's config with the files of this folder, and without a licence to accept."""
    template = load_model_config("tiny").prompt_template  # of the tokenizers in the folder
    return load_model_config("hunyuan-video").model_copy(
        update={"model_id": str(folder), "prompt_template": template, "licence": None}
    )


@contextmanager
def without_weights(configs: dict[str, dict[str, Any]]) -> Iterator[ModelConfig]:
    """A model with these component configs and no weights, which is enough to plan."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        for component, content in configs.items():
            (Path(name) / component).mkdir()
            (Path(name) / component / "config.json").write_text(json.dumps(content))
        yield model_config(Path(name))


def fastest_exact(model: ModelConfig, machine: Machine, sizes: Sequence[VideoSize]) -> tuple[VideoSize, str] | None:
    """The first size that fits in full precision, and its fastest mode; None if no size fits."""
    for size in sizes:
        fitting = [item for item in _plan(model, machine, size).modes if item.fits and item.mode.quantization is None]
        if fitting:
            return size, min(fitting, key=lambda item: item.seconds.total if item.seconds else 0.0).name
    return None


def fitting_modes(model: ModelConfig, machine: Machine, size: VideoSize) -> list[str]:
    """The modes that fit, the plan's choice first."""
    found = _plan(model, machine, size)
    names = [item.name for item in found.modes if item.fits]
    return names if found.choice is None else list(dict.fromkeys([found.choice.name, *names]))


def predict(
    model: ModelConfig, machine: Machine, size: VideoSize, mode: str, tiling: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Predicted bytes by stage, and seconds; None for a mode that the planner does not know.

    Args:
        model: with a folder of configs.
        machine: may have no GPU.
        size: of the video.
        mode: a name such as ``group+tiling``.
        tiling: the tiles that decoding used, which depend on the free memory; None for the mode's own.
    """
    named = next((item for item in all_modes() if item.name == mode), None)
    if named is None:
        return None
    item = weigh(size.request(), model, machine, named, as_named=True)
    tiles = (TILED if named.vae_tiling else UNTILED) if tiling is None else Tiling(**tiling)
    setup = Setup(
        machine.device, named.offload, named.method, tiles, dict(DTYPES[machine.device]), allocator=machine.allocator
    )
    architecture = read_architecture(model)
    found = forecast(architecture, Shape.of(architecture, *size, model.prompt_template.crop_start), setup)
    seconds = None
    if item.seconds is not None:
        times = estimate(found, setup, machine.reference, steps=1)
        seconds = {name: getattr(times, name) for name in TIMES}
    peaks = found.peaks.items()
    return {
        "gpu_bytes": {stage: peak.gpu_bytes for stage, peak in peaks} if machine.device == "cuda" else {},
        "host_bytes": {stage: peak.host_bytes for stage, peak in peaks},
        "needed_gpu_bytes": item.needed_gpu_bytes,
        "seconds": seconds,
        "flops_per_step": found.costs["denoise"].flops,
        "does_not_fit": item.reason,
    }


def _plan(model: ModelConfig, machine: Machine, size: VideoSize) -> Plan:
    return plan(size.request(), model, machine, as_named=True)
