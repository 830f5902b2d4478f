"""The phases, in the order of their worth: what each measures, with which arguments, and its share of the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hunyuan_local.config import GIB, ModelConfig
from hunyuan_local.errors import ConfigError
from hunyuan_local.planner import Machine
from hunyuan_local.planner.encoded_lengths import LLAMA_TOKENS

from .plans import VideoSize, fastest_exact, fitting_modes

USUAL_MINUTES = 10.0  # to which the limits below belong; with more minutes, each limit grows
# Usable GiB of cards as torch reports them: L40S or A6000 with ECC, 4090, 4080, 3060.
CARDS = {"48 GB": 44.4, "24 GB": 23.5, "16 GB": 15.6, "12 GB": 11.6}
_EXPANDABLE, _FIXED = ({"PYTORCH_ALLOC_CONF": f"expandable_segments:{value}"} for value in (True, False))


# Ways to run the transformer, as ``passes`` describes them.
Variants = dict[str, dict[str, Any]]
EXACT: Variants = {"diffusers": {"diffusers": None}, "this package": {}, "with Triton's kernels": {"kernels": "triton"}}


def quantizations(cuda: bool) -> Variants:
    """Every quantization; the dynamic ones compiled, which takes long on a CPU."""
    plain: Variants = {name: {"quantization": name} for name in ("fp8", "int8", "nf4")}
    dynamic: Variants = {
        f"{name}, compiled": {"quantization": name, "compile": cuda} for name in ("fp8-dynamic", "int8-dynamic")
    }
    return {"full precision": {}} | plain | dynamic


def offloads(cuda: bool) -> Variants:
    """Resident weights and group offload; diffusers' takes these options only with a stream."""
    return {
        "resident": {},
        "this package's group offload": {"offload": "group"},
        "diffusers' group offload": {"diffusers": {"use_stream": cuda}},
        "diffusers' with record_stream": {"diffusers": {"use_stream": cuda, "record_stream": cuda}},
    }


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
        self._scale, self._configs, self._folder = scale, configs, str(folder)
        self._device = {"device": scale.device}
        self._random = self._device | {"checkpoint": self._folder}
        self._heads = {"heads": transformer["num_attention_heads"], "head_dim": transformer["attention_head_dim"]}
        self.blocks = {
            "transformer_blocks": transformer["num_layers"],
            "single_transformer_blocks": transformer["num_single_layers"],
            "layers": text["num_hidden_layers"],
        }
        self._few = {name: min(count, 4) for name, count in self.blocks.items()}

    def first(self) -> list[Phase]:
        """The machine card, and the random weights that most other phases load."""
        pieces, size = self._scale.copies
        card = {"tokens": self._scale.large.tokens, "width": self._heads["heads"] * self._heads["head_dim"]}
        card |= self._device | {"pieces": pieces, "piece_bytes": size}
        weights = {"folder": self._folder, "configs": self._configs}
        return [Phase("card", "card:describe", 90, card), Phase("weights", "checkpoint:write", 60, weights)]

    def others(self, model: ModelConfig, machine: Machine) -> list[Phase]:
        """All phases after the first ones, for this machine; plans with the model's configs."""
        scale, small, large = self._scale, self._scale.small, self._scale.large
        cuda = scale.device == "cuda"
        lengths = self._device | self._heads | {"tokens": sorted({small.tokens, large.tokens})}
        several = {"steps": 2, "small": small, "small_steps": 4, "blocks": self.blocks}
        several |= self._random | self._exact_mode(model, machine)
        caches = self._random | {"blocks": self._few, "size": large, "steps": 4}
        sparse = {"tile": scale.window_tile, "windows": scale.windows, "block": scale.mask_block, "compile": cuda}
        sparse |= self._device | self._heads | {"latents": large.grid, "text": LLAMA_TOKENS}
        return [
            Phase("attention", "attention:compare", 60, lengths),
            self._passes("blocks", 60, large, EXACT),
            Phase("video", "videos:make_several", 150, several),
            self._passes("compile", 120, large, {"eager": {}, "compiled": {"compile": True}}),
            *self._smaller_cards(model, machine, "", _EXPANDABLE),
            Phase("caches", "videos:skip_steps", 60, caches),
            self._passes("quantization", 120, large, quantizations(cuda)),
            self._passes("group offload", 90, small, offloads(cuda), self._few),
            Phase("sparse attention", "sparse:compare", 90, sparse),
            *self._smaller_cards(model, machine, ", fixed segments", _FIXED),
            *(self._mode(mode, size) for size in scale.sizes for mode in fitting_modes(model, machine, size)),
        ]

    def real_video(self, model: str, output: Path) -> Phase:
        """A video of real weights with the model's own steps, in the plan's choice for this machine."""
        task = {"model": model, "size": self._scale.real, "output": str(output)}
        return Phase("real video", "videos:make_real", 400, self._device | task)

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
        task = self._random | {"size": size, "steps": 3, "mode": mode, "blocks": self.blocks}
        return Phase(f"{mode} at {size}", "videos:make", 300, task)

    def _passes(
        self, name: str, limit_s: float, size: VideoSize, variants: Variants, blocks: dict[str, int] | None = None
    ) -> Phase:
        """Passes of the transformer; of one block of each kind, unless more are given."""
        task = {"variants": variants, "grid": size.grid, "text": LLAMA_TOKENS, "compiler": self._scale.compiler}
        return Phase(name, "passes:compare", limit_s, self._random | task | {"blocks": blocks or {}})

    def _exact_mode(self, model: ModelConfig, machine: Machine) -> dict[str, Any]:
        """The largest size that fits in full precision, and its fastest mode."""
        sizes = self._scale.sizes[::-1]
        size, mode = fastest_exact(model, machine, sizes) or (self._scale.small, "sequential+tiling")
        return {"size": size, "mode": mode}

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
            found.append(Phase(f"memory of {card}{end}", "videos:make", 90, self._random | mode | task, environment))
        return found


def in_minutes(phase: Phase, minutes: float) -> Phase:
    """The phase with the time limit that belongs to a check of these minutes; never a shorter one."""
    return replace(phase, limit_s=phase.limit_s * max(1.0, minutes / USUAL_MINUTES))
