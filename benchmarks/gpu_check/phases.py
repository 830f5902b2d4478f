"""The phases, in the order of their worth: what each measures, with which arguments, and its share of the time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hunyuan_local.config import GIB, ModelConfig, RuntimeProfile
from hunyuan_local.errors import ConfigError
from hunyuan_local.planner import Machine

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


def first(scale: Scale, configs: dict[str, dict[str, Any]], folder: Path) -> list[Phase]:
    """The machine card, and the random weights that most other phases load."""
    width = configs["transformer"]["num_attention_heads"] * configs["transformer"]["attention_head_dim"]
    pieces, size = scale.copies
    card = {"tokens": scale.large.tokens, "width": width, "pieces": pieces, "piece_bytes": size}
    return [
        Phase("card", "card:describe", 90, {"device": scale.device} | card),
        Phase("weights", "checkpoint:write", 60, {"device": "cpu", "folder": str(folder), "configs": configs}),
    ]


def others(
    scale: Scale, configs: dict[str, dict[str, Any]], folder: Path, model: ModelConfig, machine: Machine
) -> list[Phase]:
    """All phases after the first ones.

    Args:
        scale: sizes.
        configs: of the components at full depth.
        folder: of the random weights.
        model: its configs, to plan.
        machine: this one.
    """
    shape = {"heads": configs["transformer"]["num_attention_heads"]}
    shape["head_dim"] = configs["transformer"]["attention_head_dim"]
    on = {"device": scale.device, "checkpoint": str(folder)}
    latents, text = _latents(scale.large), scale.large.tokens - _count(scale.large)
    blocks = on | {"latents": latents, "text": text, "compiler": scale.compiler}
    few, all_ = _blocks(configs, few=True), _blocks(configs, few=False)
    exact: dict[str, Any] = {"diffusers": "diffusers", "this package": {}}
    if "kernels" in RuntimeProfile.model_fields:
        exact["with Triton's kernels"] = {"kernels": "triton"}
    limits = {
        fixed: [_limit(scale, model, machine, card, on, few, all_, fixed) for card in CARDS] for fixed in (False, True)
    }
    tile = {"tile": scale.window_tile, "windows": scale.windows, "block": scale.mask_block}
    sparse = {"latents": scale.large.latents, "text": text, "compile": scale.device == "cuda"} | tile
    several = {"size": _sides(scale.large), "steps": 2, "small": _sides(scale.small), "small_steps": 4, "blocks": all_}
    several |= {"mode": "none+tiling", "output": str(folder.with_name("video"))}
    tokens = sorted({scale.small.tokens, scale.large.tokens})
    return [
        Phase("attention", "kernels:compare", 60, {"device": scale.device, "tokens": tokens} | shape),
        Phase("blocks", "variants:compare", 60, blocks | {"variants": exact}),
        Phase("video", "videos:make_several", 150, on | several),
        Phase("compile", "variants:compare", 120, blocks | {"variants": {"eager": {}, "compiled": {"compile": True}}}),
        *limits[False],
        Phase("caches", "offload:skip_steps", 60, on | {"blocks": few, "size": _sides(scale.large), "steps": 4}),
        Phase("quantization", "variants:compare", 120, blocks | {"variants": _quantizations(scale)}),
        Phase("group offload", "offload:stream", 90,
              on | {"blocks": few, "latents": _latents(scale.small), "text": text}),
        Phase("sparse attention", "sparse:compare", 90, {"device": scale.device} | shape | sparse),
        *limits[True],
        *_modes(scale, model, machine, on, all_),
    ]  # fmt: skip


def real_video(model: str, scale: Scale, output: Path) -> Phase:
    """A video of real weights with the model's own steps, in the plan's choice for this machine."""
    task = {"model": model, "mode": "auto", "size": _sides(scale.real), "steps": None, "output": str(output)}
    return Phase("real video", "videos:make", 400, {"device": scale.device} | task)


def mode_phase(name: str, scale: Scale, folder: Path, configs: dict[str, dict[str, Any]]) -> Phase:
    """The phase of a name such as ``group+tiling at 512x320x61``, whether the mode fits or not.

    Raises:
        ConfigError: the name is not of this form.
    """
    mode, between, size = name.partition(" at ")
    if not between:
        raise ConfigError(
            f"phase={name!r}: must be a phase that --list shows, or a mode and a size, such as "
            "'group+tiling at 512x320x61'"
        )
    on = {"device": scale.device, "checkpoint": str(folder)}
    return _mode(mode, VideoSize.parse(size), on, _blocks(configs, few=False))


def in_minutes(phase: Phase, minutes: float) -> Phase:
    """The phase with the time limit that belongs to a check of so many minutes; never a shorter one."""
    return replace(phase, limit_s=phase.limit_s * max(1.0, minutes / USUAL_MINUTES))


def _limit(
    scale: Scale, model: ModelConfig, machine: Machine, card: str, on: dict[str, Any], few: dict[str, int],
    all_: dict[str, int], fixed: bool,
) -> Phase:  # fmt: skip
    """A video in the memory of a smaller card, in the fastest exact mode that is planned for it.

    Modes that stream blocks hold the same memory with a few blocks as with all, so they run with a few.
    """
    limit = round(CARDS[card] * GIB)
    there = replace(machine, gpu_memory_bytes=limit) if machine.device == "cuda" else machine
    size, mode = fastest_exact(model, there, scale.sizes[::-1]) or (scale.small, "sequential+tiling")
    streams = mode.startswith(("group", "sequential"))
    task = {"size": _sides(size), "steps": 2 if streams else 1, "mode": mode, "blocks": few if streams else all_}
    task |= {"limit_bytes": limit, "output": str(Path(on["checkpoint"]).with_name("limit.mp4"))}
    name = f"memory of {card}" + (", fixed segments" if fixed else "")
    return Phase(name, "videos:make", 90, on | task, _FIXED if fixed else _EXPANDABLE)


def _modes(
    scale: Scale, model: ModelConfig, machine: Machine, on: dict[str, Any], blocks: dict[str, int]
) -> list[Phase]:
    return [_mode(mode, size, on, blocks) for size in scale.sizes for mode in fitting_modes(model, machine, size)]


def _mode(mode: str, size: VideoSize, on: dict[str, Any], blocks: dict[str, int]) -> Phase:
    task = {"size": _sides(size), "steps": 3, "mode": mode, "blocks": blocks}
    task["output"] = str(Path(on["checkpoint"]).with_name("mode.mp4"))
    return Phase(f"{mode} at {size}", "videos:make", 300, on | task)


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


def _blocks(configs: dict[str, dict[str, Any]], few: bool) -> dict[str, int]:
    """How many blocks the model has by the name of their list; at most four of each for ``few``."""
    transformer, text = configs["transformer"], configs["text_encoder"]
    counts = {
        "transformer_blocks": transformer["num_layers"],
        "single_transformer_blocks": transformer["num_single_layers"],
        "layers": text["num_hidden_layers"],
    }
    return {name: min(count, 4) if few else count for name, count in counts.items()}


def _sides(size: VideoSize) -> list[int]:
    return [size.width, size.height, size.num_frames]


def _latents(size: VideoSize) -> list[int]:
    """Frames, height and width of the latents, twice as many as tokens in both directions."""
    frames, rows, columns = size.latents
    return [frames, 2 * rows, 2 * columns]


def _count(size: VideoSize) -> int:
    frames, rows, columns = size.latents
    return frames * rows * columns
