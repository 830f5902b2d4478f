"""The phases, in the order of their worth: what each measures, with which arguments, and its share of the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hunyuan_local.config import GIB, ModelConfig, RuntimeProfile
from hunyuan_local.errors import ConfigError
from hunyuan_local.planner import Machine
from hunyuan_local.planner.encoded_lengths import LLAMA_TOKENS

from .plans import VideoSize, fastest_exact, fitting_modes

USUAL_MINUTES = 10.0  # to which the limits below belong; with more minutes, each limit grows
# Usable GiB of cards as torch reports them: L40S or A6000 with ECC, 4090, 4080, 3060.
CARDS = {"48 GB": 44.4, "24 GB": 23.5, "16 GB": 15.6, "12 GB": 11.6}
_EXPANDABLE, _FIXED = ({"PYTORCH_ALLOC_CONF": f"expandable_segments:{value}"} for value in (True, False))


@dataclass(frozen=True)
class Scale:
    """The sizes of all phases: those of the 13 B model on a GPU, or toy sizes for a dry run on a CPU."""

    device: str
    sizes: tuple[VideoSize, ...]  # from small to large
    real: VideoSize  # of a video of real weights
    window_tile: tuple[int, int, int]
    windows: tuple[tuple[int, int, int], ...]
    mask_block: int
    compiler: str
    copies: tuple[int, int]  # pieces, bytes of each

    @property
    def small(self) -> VideoSize:
        """A short clip."""
        return self.sizes[0]

    @property
    def large(self) -> VideoSize:
        """The size that the model's speed and memory are known by."""
        return self.sizes[-1]


FULL = Scale(
    "cuda", tuple(map(VideoSize.parse, ("512x320x61", "960x544x129", "1280x720x129"))), VideoSize(512, 320, 61),
    (3, 5, 8), ((33, 45, 80), (21, 27, 48), (15, 25, 40)), 128, "inductor", (32, 64 * 2**20),
)  # fmt: skip
TOY = Scale(
    "cpu", tuple(map(VideoSize.parse, ("64x48x5", "96x64x9"))), VideoSize(144, 80, 9),
    (1, 2, 2), ((3, 4, 6), (1, 4, 4), (1, 2, 4)), 16, "eager", (2, 2**16),
)  # fmt: skip


@dataclass(frozen=True)
class Phase:
    """One process: ``function`` is ``module:function`` of this package, and ``task`` holds its arguments."""

    name: str
    function: str
    limit_s: float
    task: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)


class Phases:
    """The phases for one machine.

    Args:
        scale: sizes.
        configs: of the components at full depth.
        folder: of the random weights.
    """

    def __init__(self, scale: Scale, configs: dict[str, dict[str, Any]], folder: Path):
        transformer, text = configs["transformer"], configs["text_encoder"]
        self._scale, self._configs, self._folder = scale, configs, folder
        self._on = {"device": scale.device, "checkpoint": str(folder)}
        self._shape = {"heads": transformer["num_attention_heads"], "head_dim": transformer["attention_head_dim"]}
        self.blocks = {
            "transformer_blocks": transformer["num_layers"],
            "single_transformer_blocks": transformer["num_single_layers"],
            "layers": text["num_hidden_layers"],
        }
        self._few = {name: min(count, 4) for name, count in self.blocks.items()}

    def first(self) -> list[Phase]:
        """The machine card, and the random weights that most other phases load."""
        pieces, size = self._scale.copies
        card = {"tokens": self._scale.large.tokens, "width": self._shape["heads"] * self._shape["head_dim"]}
        card |= {"device": self._scale.device, "pieces": pieces, "piece_bytes": size}
        weights = {"device": "cpu", "folder": str(self._folder), "configs": self._configs}
        return [Phase("card", "card:describe", 90, card), Phase("weights", "checkpoint:write", 60, weights)]

    def others(self, model: ModelConfig, machine: Machine) -> list[Phase]:
        """All phases after the first ones, for this machine; plans with the model's configs."""
        scale, small, large = self._scale, self._scale.small, self._scale.large
        device, here = {"device": scale.device}, self._exact_mode(model, machine)
        pass_ = self._on | {"latents": _latents(large), "text": LLAMA_TOKENS, "compiler": scale.compiler}
        several = self._on | here | {"steps": 2, "small": _sides(small), "small_steps": 4, "blocks": self.blocks}
        stream = self._on | {"blocks": self._few, "latents": _latents(small), "text": LLAMA_TOKENS}
        sparse = {"latents": large.latents, "text": LLAMA_TOKENS, "compile": scale.device == "cuda"}
        sparse |= {"tile": scale.window_tile, "windows": scale.windows, "block": scale.mask_block}
        exact: dict[str, Any] = {"diffusers": "diffusers", "this package": {}}
        if "kernels" in RuntimeProfile.model_fields:
            exact["with Triton's kernels"] = {"kernels": "triton"}
        compiled = {"eager": {}, "compiled": {"compile": True}}
        tokens = sorted({small.tokens, large.tokens})
        return [
            Phase("attention", "kernels:compare", 60, device | self._shape | {"tokens": tokens}),
            Phase("blocks", "variants:compare", 60, pass_ | {"variants": exact}),
            Phase("video", "videos:make_several", 150, several | {"output": self._beside("video")}),
            Phase("compile", "variants:compare", 120, pass_ | {"variants": compiled}),
            *self._smaller_cards(model, machine, "", _EXPANDABLE),
            Phase("caches", "offload:skip_steps", 60,
                  self._on | {"blocks": self._few, "size": _sides(large), "steps": 4}),
            Phase("quantization", "variants:compare", 120, pass_ | {"variants": _quantizations(scale)}),
            Phase("group offload", "offload:stream", 90, stream),
            Phase("sparse attention", "sparse:compare", 90, device | self._shape | sparse),
            *self._smaller_cards(model, machine, ", fixed segments", _FIXED),
            *(self._mode(mode, size) for size in scale.sizes for mode in fitting_modes(model, machine, size)),
        ]  # fmt: skip

    def real_video(self, model: str, output: Path) -> Phase:
        """A video of real weights with the model's own steps, in the plan's choice for this machine."""
        task = {"model": model, "mode": "auto", "size": _sides(self._scale.real), "steps": None, "output": str(output)}
        return Phase("real video", "videos:make", 400, {"device": self._scale.device} | task)

    def named(self, name: str) -> Phase:
        """The phase of a mode at a size, such as ``group+tiling at 512x320x61``, whether it fits or not.

        Raises:
            ConfigError: the name is not of this form.
        """
        mode, between, size = name.partition(" at ")
        if not between:
            raise ConfigError(
                f"phase={name!r}: must be a phase that --list shows, or a mode and a size, such as "
                "'group+tiling at 512x320x61'"
            )
        return self._mode(mode, VideoSize.parse(size))

    def _mode(self, mode: str, size: VideoSize) -> Phase:
        task = {
            "size": _sides(size),
            "steps": 3,
            "mode": mode,
            "blocks": self.blocks,
            "output": self._beside("mode.mp4"),
        }
        return Phase(f"{mode} at {size}", "videos:make", 300, self._on | task)

    def _exact_mode(self, model: ModelConfig, machine: Machine) -> dict[str, Any]:
        """The largest size that fits in full precision, and its fastest mode."""
        sizes = self._scale.sizes[::-1]
        size, mode = fastest_exact(model, machine, sizes) or (self._scale.small, "sequential+tiling")
        return {"size": _sides(size), "mode": mode}

    def _smaller_cards(
        self, model: ModelConfig, machine: Machine, end: str, environment: dict[str, str]
    ) -> list[Phase]:
        """A video in the memory of each card that is smaller than this one, in the best mode that is planned for it.

        Modes that stream blocks hold the same memory with a few blocks as with all, so they run with a few.
        """
        found = []
        for card, gib in CARDS.items():
            limit = round(gib * GIB)
            if machine.gpu_memory_bytes is not None and machine.gpu_memory_bytes < limit:
                continue
            there = replace(machine, gpu_memory_bytes=limit) if machine.device == "cuda" else machine
            mode = self._exact_mode(model, there)
            few = mode["mode"].startswith(("group", "sequential"))
            task = {"limit_bytes": limit, "steps": 2 if few else 1, "blocks": self._few if few else self.blocks}
            task |= self._on | mode | {"output": self._beside("limit.mp4")}
            found.append(Phase(f"memory of {card}{end}", "videos:make", 90, task, environment))
        return found

    def _beside(self, name: str) -> str:
        return str(self._folder.with_name(name))


def in_minutes(phase: Phase, minutes: float) -> Phase:
    """The phase with the time limit that belongs to a check of these minutes; never a shorter one."""
    return replace(phase, limit_s=phase.limit_s * max(1.0, minutes / USUAL_MINUTES))


def _quantizations(scale: Scale) -> dict[str, Any]:
    compiled = {"compile": True} if scale.device == "cuda" else {}  # which takes long on a CPU
    return {
        "full precision": {},
        "fp8": {"quantization": "fp8"},
        "int8": {"quantization": "int8"},
        "nf4": {"quantization": "nf4"},
        "fp8-dynamic, compiled": {"quantization": "fp8-dynamic"} | compiled,
        "int8-dynamic, compiled": {"quantization": "int8-dynamic"} | compiled,
    }


def _sides(size: VideoSize) -> list[int]:
    return [size.width, size.height, size.num_frames]


def _latents(size: VideoSize) -> list[int]:
    """Frames, height and width of the latents, twice as many as tokens in both directions."""
    frames, rows, columns = size.latents
    return [frames, 2 * rows, 2 * columns]
